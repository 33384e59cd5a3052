"""The redundant bias: a constant that a batch norm takes away again."""

from collections.abc import Iterator

from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.judging.start import has_moved
from convscope.checkup.observed import BiasGradient, Observation
from convscope.checkup.unchecked import Unchecked
from convscope.core.finding import Evidence, Finding

_ZERO = 1e-5  # rounding leaves 4e-7 in float32; a useful bias has 6e-3


@fault("redundant-bias")
def redundant_bias(observation: Observation) -> Iterator[Finding | Unchecked]:
    """Biases whose gradient cancels to nothing in a training step, whatever the loss.

    Not one that is 0 throughout before a batch norm whose statistics have moved: it has been taken
    out, as far as a file of weights can, and gets no gradient to come back by.

    Effect: 1 for every bias: it does nothing, however many parameters it has; the largest come first.
    """
    found = []
    for bias in observation.biases:
        if not bias.precise:
            yield Unchecked(bias.name, "gradients in half precision are too coarse to tell a zero sum")
        elif not bias.is_used:
            yield Unchecked(bias.name, "nothing that the network returns depends on this bias: undetermined")
        elif bias.absolute == 0:
            yield Unchecked(
                bias.name,
                "no gradient reaches this bias (a zero gain, or a detach, behind it?): undetermined",
            )
        elif bias.signed / bias.absolute < _ZERO and not _is_taken_out(observation, bias):
            found.append(bias)
    for bias in sorted(found, key=lambda bias: -bias.channels):
        yield _redundant(bias)


def _is_taken_out(observation: Observation, bias: BiasGradient) -> bool:
    """Whether a bias is 0 and the batch norms that read it aren't new."""
    behind = [norm for norm in observation.norms if norm.path in bias.norms]
    return bias.is_zero and bool(behind) and all(has_moved(norm) for norm in behind)


def _remedy(bias: BiasGradient) -> str:
    if bias.running_mean is not None:
        return (
            f"cs.checkup.mend(model, loader), or by hand {_taken_in(bias.running_mean, bias.name)}: exact "
            "in evaluation mode, no retraining; and bias=False in the next training run"
        )
    next_time = "bias=False in the next training run"
    if len(bias.norms) == 1:
        return (
            f"{next_time}; not now: {bias.norms[0]} has no running mean for this layer alone, which could "
            "take the constant in exactly"
        )
    return f"{next_time}; now, set it to 0, then cs.norm.recalibrate(model, loader)"


def _taken_in(mean: str, bias: str) -> str:
    """Two statements, to be run under ``torch.no_grad()``, by which a running mean takes a bias in."""
    (norm, _, buffer), (layer, _, parameter) = mean.rpartition("."), bias.rpartition(".")
    taking = f"model.get_submodule({layer!r}).{parameter}"
    return f"with torch.no_grad(): model.get_submodule({norm!r}).{buffer} -= {taking}; {taking} = None"


def _redundant(bias: BiasGradient) -> Finding:
    ratio = bias.signed / bias.absolute
    norm = bias.norms[0] if len(bias.norms) == 1 else None
    reader = f"the batch norm {norm}" if norm else "a normalisation or softmax behind it"
    return Finding(
        "redundant-bias",
        "advice",
        bias.address,
        (
            Evidence(
                "gradient ratio", ratio, "1", "|Σ dy| / Σ |dy| in training mode, random projection loss"
            ),
            Evidence("parameters", bias.channels, "parameters"),
        ),
        f"{bias.name} can't change the loss in training: its gradient is {ratio:.1g} of what arrives, "
        f"since {reader} takes the constant away",
        _remedy(bias),
        "Ioffe and Szegedy, Batch Normalization, arXiv 1502.03167, section 3.2",
    )
