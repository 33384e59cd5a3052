"""Faults that modules and optimizer show without being run."""

from collections.abc import Iterator

from convscope.checkup.judging.age import starting_weight
from convscope.checkup.judging.calls import modules, once
from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.judging.remedies import freeze
from convscope.checkup.judging.residuals import shown_right
from convscope.checkup.judging.start import has_moved
from convscope.checkup.observed import NormCall, Observation
from convscope.core.finding import Evidence, Finding

_STARTING_WEIGHT = 0.01  # above which the statistics' starting values still count
_MOST_MOMENTUM, _USUAL_MOMENTUM = 0.5, 0.1


@fault("momentum-convention")
def momentum_convention(observation: Observation) -> Iterator[Finding]:
    """A momentum of at least 0.5: the running averages are about those of the last batch.

    Outside [0, 1] it is none: the old value's weight, 1 − momentum, is negative or above 1.

    Effect: the batches that momentum 0.5 averages over those that this one does.
    """
    for norm in modules(observation):
        if norm.momentum is None or not norm.tracks or norm.frozen:
            continue
        if not 0 <= norm.momentum <= 1:
            yield _no_average(norm, norm.momentum)
        elif norm.momentum >= _MOST_MOMENTUM:
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
                f"set momentum={_meant(norm.momentum):.3g}, then cs.norm.recalibrate(model, loader)",
                "torch.nn.BatchNorm2d documentation, note on momentum; torchvision issue 8250",
                effect=(2 - _MOST_MOMENTUM) / _MOST_MOMENTUM / averaged,
            )


@fault("frozen-but-tracking")
def frozen_but_tracking(observation: Observation) -> Iterator[Finding]:
    """Gamma and beta don't train, but the statistics move: the layer isn't frozen.

    Only in a model that was given in training mode and of which another part trains. Not where a watched loop
    has moved them nevertheless, as it does a momentum encoder's or those of a critic that trains by turns.
    """
    moved = observation.run.moved if observation.run is not None else frozenset()
    for norm in modules(observation):
        if not observation.training or norm.path in moved:
            continue
        if norm.training and norm.trains is False and norm.tracks:
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
                f"{freeze(norm)}, which holds through every model.train(); before that, if its statistics "
                "are stale, cs.norm.recalibrate(model, loader)",
                "torch.nn.BatchNorm2d documentation: requires_grad has no effect on buffers",
            )


@fault("foreign-optimizer")
def foreign_optimizer(observation: Observation) -> Iterator[Finding]:
    """The optimizer holds none of a batch norm's trainable parameters, but others that the model hasn't."""
    facts = observation.optimizer
    if facts is None or not facts.num_foreign or not facts.missing or observation.averaged:
        return  # an average's optimizer is that of the network that it averages
    for norm in once(observation):
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
    decayed = [n for n in once(observation) if any(facts.decay.get(name, 0) > 0 for name in n.affine_names)]
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


def static_dummy_forwards(observation: Observation) -> Iterator[Finding]:
    """Running statistics have moved before the optimizer's first step: by forwards that it didn't train on.

    Only while those batches are so few that the starting values still count; more were training of old.
    Yields ``"dummy-forwards"``, at the first such layer.

    Effect: the weight of those batches in the averages, over what is tolerated of the starting values.
    """
    facts = observation.optimizer
    if facts is None or facts.has_stepped is not False:
        return
    moved = [
        (norm, weight) for norm in modules(observation) if (weight := _weight_of_batches(norm)) is not None
    ]
    if not moved:
        return
    norm, weight = moved[0]
    yield Finding(
        "dummy-forwards",
        "warning",
        norm.address,
        (
            Evidence(
                "batches tracked", norm.num_batches_tracked or 0, "batches", "at the optimizer's step 0"
            ),
            Evidence("their weight in the averages", weight, "1", "1 − (1 − momentum)^batches"),
            Evidence("layers", len(moved), "layers"),
        ),
        f"{facts.kind} hasn't made a step, but {norm.num_batches_tracked} batches have moved the running "
        f"statistics and make up {weight:.0%} of them: a summary, a profiler or a dummy forward in training "
        "mode; or a short training with another optimizer",
        "cs.norm.recalibrate(model, loader) before the first step, right in either case (or load the "
        "checkpoint again, if it was a dummy forward); and model.eval() before summaries and dummy forwards",
        "in training mode every forward moves the running statistics, under torch.no_grad() too",
        effect=weight / _STARTING_WEIGHT,
    )


def _weight_of_batches(norm: NormCall) -> float | None:
    """The weight of what few batches have moved the averages by; None if that isn't so."""
    weight = starting_weight(norm)
    if norm.frozen or not norm.num_batches_tracked or weight is None or not has_moved(norm):
        return None
    return None if shown_right(norm) or weight <= _STARTING_WEIGHT else 1 - weight


def _meant(momentum: float) -> float:
    """The weight of the new batch, if ``momentum`` is the old value's; else PyTorch's default."""
    return 1 - momentum if _MOST_MOMENTUM < momentum < 1 else _USUAL_MOMENTUM


def _no_average(norm: NormCall, momentum: float) -> Finding:
    old = 1 - momentum
    fate = "grow without bound" if abs(old) > 1 else "change sign from batch to batch"
    return Finding(
        "momentum-convention",
        "error",
        norm.address,
        (
            Evidence("momentum", momentum, "1", "weight of the new batch"),
            Evidence("weight of the old value", old, "1", "1 − momentum"),
        ),
        f"momentum {momentum:g} isn't between 0 and 1: the old value has the weight {old:g}, so that running "
        f"averages are none, and variances may be negative: what they started from will {fate}",
        f"set momentum={_USUAL_MOMENTUM} there and call its reset_running_stats(), then "
        "cs.norm.recalibrate(model, loader)",
        "torch.nn.BatchNorm2d documentation: new = (1 − momentum) · old + momentum · batch",
    )
