"""Faults of what the positions of a batch norm's inputs are: padding, or another axis than the channels'."""

from collections.abc import Iterator

from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.judging.residuals import MEAN_TOLERANCE, VARIANCE_TOLERANCE
from convscope.checkup.observed import NormCall, Observation, PaddedInputs
from convscope.core.finding import Evidence, Finding
from convscope.tape import OperatorCall

# In 15 networks of timm and torchvision, on photographs and on noise, no axis but the channels' explains more
# than 0.011 of the variance anywhere (torch 2.13, timm 1.0.31, torchvision 0.28, untrained weights).
_OTHER_SHARE = 0.15
_RAW_SHARE = 0.5  # of the network's own inputs, whose positions may well differ
_TIMES = 4.0
# Channels come in no order (a ratio of 2); positions of pictures and of series are like their neighbours.
_ROUGH = 1.0


@fault("padding-in-statistics")
def padding_in_statistics(observation: Observation) -> Iterator[Finding]:
    """Padding takes part in the statistics and changes them: outputs depend on how long the others are.

    Effect: by how much, over what a running mean or variance may be off.
    """
    found = []
    for norm in observation.norms:
        padded = None if norm.inputs is None or norm.frozen else norm.inputs.padded
        if padded is None:
            continue
        effect = max(padded.mean_shift / MEAN_TOLERANCE, padded.variance_shift / VARIANCE_TOLERANCE)
        if effect > 1:
            found.append((effect, norm, padded))
    for effect, norm, padded in sorted(found, key=lambda entry: -entry[0]):
        yield _padding_finding(effect, norm, padded)


@fault("wrong-axis")
def wrong_axis(observation: Observation) -> Iterator[Finding]:
    """Another axis than the one that the layer takes for channels explains the variance of its inputs.

    As where (N, L, C) is given to a BatchNorm1d, which takes (N, C, L), or (N, H, W, C) to a BatchNorm2d. An
    axis whose means run smoothly is one of positions: centred pictures, series with a trend.
    """
    for norm in observation.norms:
        shares = norm.inputs.axis_shares if norm.inputs is not None else ()
        if norm.frozen or norm.channels < 2 or len(shares) < 2:
            continue
        most = _RAW_SHARE if _reads_inputs(observation, norm) else _OTHER_SHARE
        rough = norm.inputs.axis_roughness if norm.inputs is not None else ()
        other = max((share for share, ratio in zip(shares[1:], rough[1:]) if ratio > _ROUGH), default=0.0)
        if other > most and other > _TIMES * shares[0]:
            yield _axis_finding(norm, shares, shares.index(other, 1), other / most)


def _reads_inputs(observation: Observation, norm: NormCall) -> bool:
    """Whether a layer normalises the network's inputs as they are, or their axes in another order."""
    tape = observation.tape
    call = None if tape is None or norm.operator is None else tape.find(norm.operator)
    if tape is None or not isinstance(call, OperatorCall):
        return False
    value = call.tensor("input")
    return value is not None and tape.values[value].storage in {tape.values[i].storage for i in tape.inputs}


def _padding_finding(effect: float, norm: NormCall, padded: PaddedInputs) -> Finding:
    return Finding(
        "padding-in-statistics",
        "warning",
        norm.address,
        (
            Evidence(
                "padding", padded.share, "1", "part of the positions, as the inputs' constant ends show"
            ),
            Evidence(
                "shift of the mean", padded.mean_shift, "σ", "all positions against content, worst channel"
            ),
            Evidence("shift of the log variance", padded.variance_shift, "1", "the same"),
        ),
        f"{padded.share:.0%} of the positions are padding, which shifts means by up to "
        f"{padded.mean_shift:.2g} σ (tolerance {MEAN_TOLERANCE:.2g}) and log variances by up to "
        f"{padded.variance_shift:.2g} (tolerance {VARIANCE_TOLERANCE:.2g}) from those of "
        "the content: what comes out for a sample depends on how much it and the others are padded",
        "batches of samples of like lengths; or cs.norm.convert(model, 'batch'), whose layers take a mask: "
        "norm(x, mask), True for content",
        "pytorch issue 70529 (batch norm has no mask)",
        effect=effect,
    )


def _axis_finding(norm: NormCall, shares: tuple[float, ...], index: int, effect: float) -> Finding:
    axis = 1 + index
    ending = axis == len(shares)
    order = (0, axis, *(other for other in range(1, len(shares) + 1) if other != axis))
    back = tuple(order.index(axis) for axis in range(len(order)))
    return Finding(
        "wrong-axis",
        "warning",
        norm.address,
        (
            Evidence("variance explained by axis 1", shares[0], "1", "Var(means by index) / Var(values)"),
            Evidence(f"variance explained by axis {axis}", shares[axis - 1], "1", "the same"),
        ),
        f"axis {axis}{', the last one,' if ending else ''} explains {shares[axis - 1]:.0%} of the variance "
        f"of the inputs, and axis 1, by which this layer normalises, {shares[0]:.1%}: the channels seem to "
        f"lie along axis {axis}",
        f"x.permute{order} before the layer and .permute{back} after it, or torch.nn.LayerNorm over the "
        "channels",
        "torch.nn.BatchNorm1d documentation: (N, C) or (N, C, L)",
        effect=effect,
    )
