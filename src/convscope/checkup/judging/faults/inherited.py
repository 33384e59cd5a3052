"""Faults of statistics that should have been handed down: left behind, averaged wrongly, or none at all."""

from collections.abc import Iterator

from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.judging.residuals import MEAN_TOLERANCE, VARIANCE_TOLERANCE
from convscope.checkup.judging.start import has_moved, is_at_start
from convscope.checkup.observed import NormCall, Observation, ReferenceFacts, ReferenceNorm
from convscope.core.finding import Evidence, Finding

_ESTIMATE_ANEW = "cs.norm.recalibrate(model, loader)"


@fault("teacher-statistics")
def teacher_statistics(observation: Observation) -> Iterator[Finding]:
    """Running statistics are still 0 and 1 while the reference's have moved; or a counter was averaged.

    Effect: largest distance of the reference's statistics from the start, over the tolerance of
    stale-statistics.
    """
    facts = observation.reference
    if facts is not None and facts.source == "network":
        left = list(_left_at_start(observation, facts))
        if left:
            yield _teacher_finding(left)
    averaged = [norm for norm in _modules(observation) if _is_averaged_counter(norm)]
    if averaged:
        yield Finding(
            "teacher-statistics",
            "warning",
            averaged[0].address,
            (Evidence("layers", len(averaged), "layers", "whose counter is a fraction by its dtype"),),
            f"num_batches_tracked is {str(averaged[0].counter_dtype).removeprefix('torch.')} in "
            f"{len(averaged)} layers: somebody has averaged this count of batches like a weight",
            "copy counters from the student and average floating-point tensors only; now, for each layer, "
            "layer.num_batches_tracked = layer.num_batches_tracked.long()",
            "torch.nn.BatchNorm2d: the counter is a whole number (int64)",
        )


@fault("missing-statistics")
def missing_statistics(observation: Observation) -> Iterator[Finding]:
    """The checkpoint's running statistics didn't arrive, or the layer has none to use at test time.

    Effect: as that of teacher-statistics where the checkpoint has them; 1 elsewhere.
    """
    facts = observation.reference
    if facts is not None and facts.source == "checkpoint":
        lacking = {name.rpartition(".")[0] for name in facts.missing}
        absent = [norm for norm in _modules(observation) if norm.path in lacking and is_at_start(norm)]
        if absent:
            yield _absent_finding(absent)
        ignored = list(_left_at_start(observation, facts))
        if ignored:
            yield _ignored_finding(ignored)
    for norm in _modules(observation):
        if norm.running_mean is None or norm.running_variance is None:
            yield _untracked_finding(norm)


def _left_at_start(
    observation: Observation, facts: ReferenceFacts
) -> Iterator[tuple[NormCall, ReferenceNorm]]:
    for norm in _modules(observation):
        other = facts.norms.get(norm.path)
        if other is not None and is_at_start(norm) and has_moved(other):
            yield norm, other


def _distance(other: ReferenceNorm) -> float:
    """How far a reference's statistics are from 0 and 1, in units of what stale-statistics tolerates."""
    mean_C, variance_C = other.running_mean, other.running_variance
    if mean_C is None or variance_C is None:
        return 1.0
    off_mean = float((mean_C / variance_C.clamp_min(1e-12).sqrt()).abs().max()) / MEAN_TOLERANCE
    return max(1.0, off_mean, float(variance_C.clamp_min(1e-12).log().abs().max()) / VARIANCE_TOLERANCE)


def _start_evidence(left: list[tuple[NormCall, ReferenceNorm]]) -> tuple[Evidence, ...]:
    return (
        Evidence("layers", len(left), "layers", "with mean 0 and variance 1 exactly"),
        Evidence(
            "distance of the reference's", max(_distance(other) for _, other in left), "1",
            "from 0 and 1, over what stale-statistics tolerates; worst channel",
        ),
    )  # fmt: skip


def _teacher_finding(left: list[tuple[NormCall, ReferenceNorm]]) -> Finding:
    return Finding(
        "teacher-statistics",
        "error",
        left[0][0].address,
        _start_evidence(left),
        f"the running statistics of {len(left)} batch norms are 0 and 1 exactly, as at the start, while the "
        "reference's have moved: weights were copied or averaged over, buffers weren't",
        "copy the student's buffers (teacher_bn.running_mean.copy_(student_bn.running_mean), and so on); or "
        f"better, {_ESTIMATE_ANEW}",
        "parameters() leaves buffers out; moco issue 70, ignite issue 2590",
        effect=max(_distance(other) for _, other in left),
    )


def _ignored_finding(left: list[tuple[NormCall, ReferenceNorm]]) -> Finding:
    return Finding(
        "missing-statistics",
        "error",
        left[0][0].address,
        _start_evidence(left),
        f"the checkpoint has running statistics for {len(left)} batch norms that are at 0 and 1 exactly "
        "here: they weren't loaded",
        f"load them: model.load_state_dict(checkpoint) with strict=True; or {_ESTIMATE_ANEW}",
        "load_state_dict(strict=False) passes over what it can't place",
        effect=max(_distance(other) for _, other in left),
    )


def _absent_finding(absent: list[NormCall]) -> Finding:
    return Finding(
        "missing-statistics",
        "error",
        absent[0].address,
        (Evidence("layers", len(absent), "layers", "whose running statistics the checkpoint lacks"),),
        f"the checkpoint has no running statistics for {len(absent)} batch norms, which are at 0 and 1 "
        "exactly: at test time they don't normalise",
        f"{_ESTIMATE_ANEW}; and save state_dict(), which holds buffers, rather than parameters alone",
        "torch.nn.Module.parameters() leaves buffers out; pytorch issue 38084",
    )


def _untracked_finding(norm: NormCall) -> Finding:
    effective = None if norm.population is None else norm.population.effective_values
    noise = (
        [] if not effective else [Evidence("noise of the batch mean", effective**-0.5, "σ", "at this batch")]
    )
    return Finding(
        "missing-statistics",
        "warning",
        norm.address,
        (*noise, Evidence("running statistics", 0, "buffers")),
        "this batch norm has no running statistics and normalises by the batch at test time as well: an "
        "image's output depends on the others of its batch",
        "build it with track_running_stats=True, load γ and β, then cs.norm.recalibrate(model, loader)",
        "torch.nn.BatchNorm2d documentation: track_running_stats=False; pytorch issue 20967",
    )


def _is_averaged_counter(norm: NormCall) -> bool:
    return norm.counter_dtype is not None and norm.counter_dtype.is_floating_point


def _modules(observation: Observation) -> Iterator[NormCall]:
    """Each batch norm module once."""
    seen: set[str] = set()
    for norm in observation.norms:
        if norm.training is not None and norm.path not in seen:
            seen.add(norm.path)
            yield norm
