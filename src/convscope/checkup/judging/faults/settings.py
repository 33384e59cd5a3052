"""Faults that modules and optimizer show without being run."""

from collections.abc import Iterator

import torch

from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.observed import NormCall, Observation
from convscope.core.finding import Evidence, Finding

_HALF = {torch.float16: 11, torch.bfloat16: 8}  # significant bits


@fault("momentum-convention")
def momentum_convention(observation: Observation) -> Iterator[Finding]:
    """A momentum of at least 0.5: the running averages are about those of the last batch."""
    for norm in _modules(observation):
        if norm.momentum is not None and norm.momentum >= 0.5 and norm.tracks and not norm.frozen:
            averaged = (2 - norm.momentum) / norm.momentum
            yield Finding(
                "momentum-convention",
                "warning",
                norm.address,
                (
                    Evidence("momentum", norm.momentum, "1", "weight of the new batch"),
                    Evidence("batches averaged", averaged, "batches", "(2 − momentum) / momentum"),
                ),
                f"momentum {norm.momentum:g} weighs the newest batch: the running averages hold "
                f"{averaged:.1f} batches. In TensorFlow's convention the same number weighs the old value",
                f"momentum={1 - norm.momentum:.3g}, then estimate the statistics anew"
                if norm.momentum < 1
                else "momentum=0.1, then estimate the statistics anew",
                "torch.nn.BatchNorm2d documentation, note on momentum; torchvision issue 8250",
            )


@fault("statistics-never-move")
def statistics_never_move(observation: Observation) -> Iterator[Finding]:
    """Momentum 0 in training mode: normalised by the batch, while the test-time statistics stand still."""
    for norm in _modules(observation):
        if norm.momentum == 0 and norm.tracks and not norm.frozen and norm.running_mean is not None:
            yield Finding(
                "statistics-never-move",
                "warning",
                norm.address,
                (Evidence("momentum", 0.0, "1", "weight of the new batch"),),
                "with momentum 0 training uses batch statistics and test time old ones: this doesn't freeze",
                "module.eval() after every model.train() to freeze it, or a momentum above 0",
                "torch.nn.BatchNorm2d documentation: training mode normalises by the batch",
            )


@fault("half-statistics")
def half_statistics(observation: Observation) -> Iterator[Finding]:
    """Running statistics in half precision: small steps of the averages round to nothing."""
    for norm in observation.norms:
        bits = _HALF.get(norm.statistics_dtype) if norm.statistics_dtype else None
        if bits is None or norm.frozen or not norm.momentum:
            continue
        stalls = 2.0**-bits / norm.momentum
        yield Finding(
            "half-statistics",
            "warning",
            norm.address,
            (
                Evidence("significant bits", bits, "bits", str(norm.statistics_dtype)),
                Evidence("smallest relative error that is corrected", stalls, "1", "2^−bits / momentum"),
            ),
            f"running statistics in {str(norm.statistics_dtype).removeprefix('torch.')} stop moving once "
            f"they are within about {stalls:.1%} of the truth, since the step rounds to nothing",
            "keep batch norms in float32 (autocast does), then estimate them anew",
            "round to nearest: a step below half a unit in the last place is lost",
        )


@fault("frozen-but-tracking")
def frozen_but_tracking(observation: Observation) -> Iterator[Finding]:
    """Gamma and beta don't train, but the statistics move: the layer isn't frozen.

    Only in a model that was given in training mode and of which another part trains.
    """
    for norm in _modules(observation):
        if observation.training and norm.training and norm.trains is False and norm.tracks:
            yield Finding(
                "frozen-but-tracking",
                "warning",
                norm.address,
                (
                    Evidence(
                        "momentum", norm.momentum or 0.0, "1", "by which every batch moves the statistics"
                    ),
                ),
                "gamma and beta have requires_grad=False, but in training mode the layer uses batch "
                "statistics and moves its running ones: what it computes drifts",
                "module.eval() after every model.train(), so that it uses and keeps its running statistics",
                "torch.nn.BatchNorm2d documentation: requires_grad has no effect on buffers",
            )


@fault("foreign-optimizer")
def foreign_optimizer(observation: Observation) -> Iterator[Finding]:
    """The optimizer holds none of a batch norm's trainable parameters, but others that the model hasn't."""
    facts = observation.optimizer
    if facts is None or not facts.num_foreign or not facts.missing:
        return
    for norm in _once(observation):
        lost = [name for name in norm.affine_names if name in facts.missing]
        if lost:
            yield Finding(
                "foreign-optimizer",
                "error",
                norm.address,
                (
                    Evidence("parameters that aren't updated", len(lost), "tensors"),
                    Evidence("parameters of another model", facts.num_foreign, "tensors", "in the optimizer"),
                ),
                f"the optimizer doesn't hold {', '.join(lost)}, but {facts.num_foreign} tensors that aren't "
                "the model's: the layer was replaced after the optimizer was made, and doesn't learn",
                "make the optimizer after converting or replacing layers",
                "an optimizer updates the tensors that it was given",
            )


@fault("decayed-gains")
def decayed_gains(observation: Observation) -> Iterator[Finding]:
    """Weight decay pulls gamma and beta to zero; advice, since it can help too."""
    facts = observation.optimizer
    if facts is None:
        return
    decayed = [n for n in _once(observation) if any(facts.decay.get(name, 0) > 0 for name in n.affine_names)]
    if decayed:
        decay = max(facts.decay.get(name, 0.0) for norm in decayed for name in norm.affine_names)
        yield Finding(
            "decayed-gains",
            "advice",
            decayed[0].address,
            (
                Evidence("layers", len(decayed), "layers", "whose gamma or beta decays"),
                Evidence("weight decay", decay, "1", "largest"),
            ),
            f"weight decay {decay:g} shrinks gamma and beta of {len(decayed)} batch norms, which by itself "
            "regularises nothing and can kill channels",
            "an optimizer group with weight_decay=0 for them, and compare: it helps in some settings",
            "Summers and Dinneen, Four Things Everyone Should Know to Improve Batch Normalization, ICLR 2020",
        )


def _modules(observation: Observation) -> Iterator[NormCall]:
    """Each batch norm module once."""
    return (norm for norm in _once(observation) if norm.training is not None)


def _once(observation: Observation) -> Iterator[NormCall]:
    """The first call of each batch norm module, and every functional call."""
    seen: set[str] = set()
    for norm in observation.norms:
        if norm.training is None or norm.path not in seen:
            seen.add(norm.path)
            yield norm
