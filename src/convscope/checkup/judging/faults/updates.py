"""Faults of a training step: averages that move several times, per-sample gradients, weights that drift."""

import math
from collections.abc import Iterator

from convscope.checkup.judging.calls import shift_beyond_doubt
from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.observed import NormCall, Observation, TrainingRun
from convscope.checkup.observed.run import NormRun, WeightRun
from convscope.core.address import ROOT
from convscope.core.finding import Evidence, Finding
from convscope.core.units import counted

_FEWEST_VALUES = 16
_GROWTH = 10.0  # by which ‖w‖ may change over a run
_LARGEST_UPDATE, _SMALLEST_UPDATE = 0.1, 1e-7  # ‖Δw‖ / ‖w‖ per step; the second is float32's rounding
_FEWEST_SAMPLES = 10
_INVARIANT = 0.3  # of what w · ∇w is for a random direction


@fault("accumulated-batches")
def accumulated_batches(observation: Observation) -> Iterator[Finding]:
    """Gradients of several batches per step, while each batch is normalised by itself and moves the averages.

    A warning if such a batch is worth fewer than 16 values per channel, measured by how batch means differ
    between the calls of a step. Not where these differ more than by chance: then the calls are inputs of
    several kinds (``shared-over-domains``). Effect: 16 over that worth, or the batches per step.
    """
    run = observation.run
    if run is None or run.accumulated < 2 or any(shift_beyond_doubt(shift) > 1 for shift in run.call_shifts):
        return
    found = [
        norm
        for norm, declared in _updated(observation, run)
        if norm.updates > 1
        if declared not in (norm.updates, norm.updates + norm.recomputed) or _worth(norm) < _FEWEST_VALUES
    ]
    if not found:
        return
    worst = min(found, key=_worth)
    small = _worth(worst) < _FEWEST_VALUES
    k = found[0].updates
    measured = worst.effective_values is not None
    corrected = all(
        declared >= norm.updates for norm, declared in _updated(observation, run) if norm in found
    )
    momentum = "" if corrected else f"; and cs.norm.correct_momentum(model, {k})"
    batches = f"larger batches, or cs.norm.convert(model, 'group'){momentum}"
    yield Finding(
        "accumulated-batches",
        "warning" if small else "advice",
        ROOT,
        (
            Evidence("batches per step", run.accumulated, "batches", "one backward pass after each forward"),
            Evidence("updates of the running averages per step", k, "updates"),
            Evidence("images in a batch", worst.num_images, "images", "smallest"),
            Evidence(
                "effective values per channel", _worth(worst), "values",
                f"at {worst.path}: " + ("σ² / Var(batch means) in a step" if measured else "N·H·W at most"),
            ),
            Evidence("layers", len(found), "layers"),
        ),
        f"gradients of {run.accumulated} batches make a step, but every batch of {worst.num_images} images "
        f"is normalised by itself (worth {_worth(worst):.3g} values per channel at {worst.path}), and the "
        f"running averages move {k} times per step{_of_others(k - run.accumulated)}",
        batches if small else f"cs.norm.correct_momentum(model, {k})",
        "pytorch issue 46516: batch norm knows nothing of accumulation",
        effect=max(1.0, _FEWEST_VALUES / _worth(worst)) if small else float(k),
    )  # fmt: skip


@fault("recomputed-updates")
def recomputed_updates(observation: Observation) -> Iterator[Finding]:
    """Activation checkpointing runs batch norms again during backward, and moves their averages twice.

    Effect: updates per step over those that momentum is meant for.
    """
    run = observation.run
    if run is None:
        return
    found = [
        (norm, declared)
        for norm, declared in _updated(observation, run)
        if norm.recomputed and not _is_accounted_for(norm, declared)
    ]
    if not found:
        return
    norm, declared = found[0]
    total = norm.updates + norm.recomputed
    factor = max(2, round(total / max(norm.updates, 1)))
    momentum = next((call.momentum for call in observation.norms if call.path == norm.path), None) or 0.0
    paths = [norm.path for norm, _ in found]
    every = len(paths) == len({call.path for call in observation.norms})
    only = "" if every else f", only={paths!r}"
    yield Finding(
        "recomputed-updates",
        "warning",
        norm.path,
        (
            Evidence("updates by recomputation per step", norm.recomputed, "updates", "in backward passes"),
            Evidence("updates per step", total, "updates"),
            Evidence("momentum", momentum, "1", "of one update"),
            Evidence("momentum of a batch", 1 - (1 - momentum) ** factor, "1", "1 − (1 − m)^updates"),
            Evidence("layers", len(found), "layers"),
        ),
        f"activation checkpointing runs {counted(len(found), 'batch norm')} again in backward, and each time "
        f"running averages move: a batch weighs {1 - (1 - momentum) ** factor:.3g} instead of {momentum:.3g}",
        f"cs.norm.correct_momentum(model, {factor}{only}), or cs.norm.convert(model, 'convscope'), whose "
        "batch norms don't move in backward",
        "pytorch issue 96136",
        effect=total / declared,
    )


@fault("per-sample-gradients")
def per_sample_gradients(observation: Observation) -> Iterator[Finding]:
    """Gradients of single samples are asked for, but batch norm makes every output depend on all samples."""
    if observation.per_sample:
        yield from _per_sample(observation)
    run = observation.run
    if run is None or not run.input_gradients:
        return
    norms = run.input_gradient_norms
    yield Finding(
        "per-sample-gradients",
        "warning",
        ROOT,
        (
            Evidence("backward passes", run.input_gradients, "calls", "create_graph=True, to the inputs"),
            Evidence(
                "batch norms in between", len(norms), "layers", f"by batch statistics, first: {norms[0]}"
            ),
        ),
        f"a penalty on gradients of the inputs ran {counted(run.input_gradients, 'time')} through "
        f"{counted(len(norms), 'batch norm')} in training mode: an output depends on all inputs "
        "of its batch, so the gradient isn't that of one sample, as the penalty takes it to be",
        "cs.norm.convert(model, 'group') for the network whose gradients are penalised",
        "Gulrajani et al., Improved Training of Wasserstein GANs, arXiv 1704.00028, section 4",
        effect=float(len(norms)),
    )


@fault("scale-drift")
def scale_drift(observation: Observation) -> Iterator[Finding]:
    """A weight before a batch norm whose scale, which has no effect, leaves steps too large or none.

    ‖w‖ changed by more than a factor of 10, or ‖Δw‖ / ‖w‖ of a step is above 0.1 or below rounding; only
    weights whose gradient shows, by w · ∇w = 0, that their scale is without effect. Effect: the factor by
    which a limit is exceeded.
    """
    run = observation.run
    weights = [] if run is None else [weight for weight in run.weights if _is_scale_free(weight)]
    drifting = [weight for weight in weights if _drift(weight) > 1]
    if not drifting:
        return
    worst = max(drifting, key=lambda weight: (_explodes(weight), _drift(weight)))
    explodes = _explodes(worst)
    yield Finding(
        "scale-drift",
        "warning" if explodes else "advice",
        worst.norm,
        (
            Evidence("relative step", worst.update, "1", f"‖Δw‖ / ‖w‖ of {worst.name}, median"),
            Evidence("‖w‖ at the start", worst.start, "1", worst.name),
            Evidence("‖w‖ at the end", worst.end, "1", worst.name),
            Evidence("|w · ∇w| / (‖w‖ ‖∇w‖)", worst.invariance, "1", f"{worst.chance:.1g} at random"),
            Evidence("learning rate", worst.rate, "1", "largest of the sampled steps"),
            Evidence("layers", len(drifting), "layers"),
        ),
        f"a step moves {worst.name} by {worst.update:.2g} of its length, which went from {worst.start:.3g} "
        f"to {worst.end:.3g}; the batch norm behind it undoes the length (w · ∇w is {worst.invariance:.1g} "
        "of what it could be), so that the step relative to the length is the learning rate that counts",
        "a smaller learning rate or weight decay: it is their product that the length settles by"
        if explodes
        else "weight decay on these weights, which keeps their length: long ones learn little"
        if worst.update >= _SMALLEST_UPDATE
        else "weight decay on these weights, or a larger learning rate: steps are lost to rounding",
        "van Laarhoven, L2 Regularization versus Batch and Weight Normalization, arXiv 1706.05350, section 3",
        effect=_drift(worst),
    )


def _updated(observation: Observation, run: TrainingRun) -> Iterator[tuple[NormRun, int]]:
    """Batch norms with an exponential average, and the updates per step that their momentum is meant for."""
    calls = {call.path: call for call in observation.norms}
    for norm in run.norms:
        call = calls.get(norm.path)
        if call is not None and call.momentum is not None:
            yield norm, call.updates_per_step


def _is_accounted_for(norm: NormRun, declared: int) -> bool:
    """Whether momentum is meant for recomputation: alone, or together with accumulation."""
    factor = (norm.updates + norm.recomputed) / max(norm.updates, 1)
    return declared == norm.updates + norm.recomputed or (declared == factor != norm.updates)


def _of_others(updates: int) -> str:
    """Of updates that aren't those of accumulated batches: other losses', or other optimizers'."""
    return f", of which {updates} in other passes" if updates > 0 else ""


def _worth(norm: NormRun) -> float:
    """How many independent values a call is worth: as measured, or all of them."""
    return norm.num_values if norm.effective_values is None else norm.effective_values


def _per_sample(observation: Observation) -> Iterator[Finding]:
    norms = [norm for norm in observation.norms if norm.training is not None and not norm.frozen]
    if norms:
        yield Finding(
            "per-sample-gradients",
            "error",
            ROOT,
            (Evidence("batch norms", len({norm.path for norm in norms}), "layers", _first(norms)),),
            f"{observation.per_sample} asks for gradients of single samples, which {len(norms)} batch norms "
            "don't have: every output depends on all samples of its batch; a guarantee of privacy is void",
            "cs.norm.convert(model, 'group')",
            "Opacus documentation: BatchNorm isn't supported; backpack issue 160",
            effect=float(len(norms)),
        )


def _first(norms: list[NormCall]) -> str:
    return f"first: {norms[0].path}"


def _is_scale_free(weight: WeightRun) -> bool:
    enough = weight.num_steps >= _FEWEST_SAMPLES and math.isfinite(weight.invariance)
    return enough and weight.invariance < _INVARIANT * weight.chance and 0 < weight.start < math.inf


def _drift(weight: WeightRun) -> float:
    """By how much the worst of the limits is exceeded; up to 1 if none is."""
    if not 0 < weight.end < math.inf:
        return 1.0
    change = weight.end / weight.start
    limits = [max(change, 1 / change) / _GROWTH]
    if math.isfinite(weight.update):
        limits.append(weight.update / _LARGEST_UPDATE)
    if weight.update > 0:
        limits.append(_SMALLEST_UPDATE / weight.update)
    return max(limits)


def _explodes(weight: WeightRun) -> bool:
    """Whether steps are too large, or become so, for the weight's length."""
    return weight.update > _LARGEST_UPDATE or weight.end * _GROWTH < weight.start
