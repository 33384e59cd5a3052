"""Averaged weights: their running statistics are those of another network."""

from collections.abc import Iterator

from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.judging.gap_limit import is_too_large, shows_in_loss, tolerance_of, tolerated_gap
from convscope.checkup.judging.residuals import Residuals, residuals
from convscope.checkup.judging.start import has_moved
from convscope.checkup.observed import Gap, NormCall, Observation
from convscope.core.finding import Evidence, Finding, Severity

_FEWEST_IMAGES = 16
_ESTIMATE_ANEW = "cs.norm.recalibrate(model, loader)"
_SOURCE = "Izmailov et al., Averaging Weights Leads to Wider Optima, arXiv 1803.05407, section 3.2"


@fault("averaged-weights")
def averaged_weights(observation: Observation) -> Iterator[Finding]:
    """Weights that are averages of others, with the running statistics of one of those networks.

    Known from a wrapper or optimizer that averages, or from a reference of other weights with the same
    statistics. Data decides; without it, the former is advice to look, the latter a warning.

    Effect: the largest residual over its tolerance.
    """
    inherited = list(_inherited(observation))
    by = observation.averaged or _averaging_optimizer(observation)
    candidates = inherited or (list(_tracking(observation)) if by else [])
    if not candidates:
        return
    off = [(norm, found) for norm in candidates if (found := _off(norm)) is not None]
    if off:
        yield _stale_average(observation, off, by)
    elif observation.gap is not None and is_too_large(observation.gap):
        yield _costly_average(observation.gap, candidates, by)
    elif not all(_is_shown_right(norm) for norm in candidates):
        yield _unproven_average(candidates, by, bool(inherited))


def _inherited(observation: Observation) -> Iterator[NormCall]:
    """Batch norms with the reference's statistics, bit for bit, and other weights.

    Without data γ and β must be others too: where they are the same, the layer may have been frozen while
    convolutions were trained on.
    """
    facts = observation.reference
    if facts is None or facts.same_parameters:
        return
    for norm in _tracking(observation):
        other = facts.norms.get(norm.path)
        if other is None or not other.same_statistics or not has_moved(other):
            continue
        if norm.population is not None or other.same_affine is not True:
            yield norm


def _tracking(observation: Observation) -> Iterator[NormCall]:
    """Batch norms that aren't frozen, neither by their mode nor by convscope."""
    seen: set[str] = set()
    for norm in observation.norms:
        if norm.training is None or norm.path in seen:
            continue
        seen.add(norm.path)
        frozen = norm.frozen or norm.kind.rpartition(".")[2].startswith("Frozen")
        if not frozen and norm.running_mean is not None:
            yield norm


def _averaging_optimizer(observation: Observation) -> str:
    facts = observation.optimizer
    return facts.kind if facts is not None and "ScheduleFree" in facts.kind else ""


def _off(norm: NormCall) -> Residuals | None:
    found = residuals(norm, norm.batch_population or norm.population)
    return found if found is not None and found.size > 0 else None


def _is_shown_right(norm: NormCall) -> bool:
    found = residuals(norm, norm.batch_population or norm.population)
    return found is not None and found.num_images >= _FEWEST_IMAGES and found.size == 0


def _stale_average(observation: Observation, off: list[tuple[NormCall, Residuals]], by: str) -> Finding:
    norm, found = max(off, key=lambda pair: pair[1].size)
    gap = observation.gap
    loss = (
        []
        if gap is None
        else [Evidence("gap", gap.difference, gap.unit, "evaluation minus batch statistics")]
    )
    return Finding(
        "averaged-weights",
        _severity(observation, found),
        norm.address,
        (
            Evidence("mean residual", float(found.mean[found.stale].abs().max()), "σ", "worst stale channel"),
            Evidence("variance residual", float(found.variance[found.stale].abs().max()), "1",
                     "|log(σ² / running variance)|, worst stale channel"),
            *loss,
            Evidence("layers", len(off), "layers", "whose statistics aren't those of the averaged weights"),
        ),
        f"the weights are averages{f' (by {by})' if by else ''}, and the running statistics of {len(off)} "
        "batch norms aren't theirs: they were taken with other weights",
        f"{_ESTIMATE_ANEW} after the last update of the average",
        _SOURCE,
        effect=found.size,
    )  # fmt: skip


def _severity(observation: Observation, found: Residuals) -> Severity:
    """As for stale statistics: an error if it shows in the loss, or else by size."""
    shows = None if observation.gap is None else shows_in_loss(observation.gap)
    return "error" if (found.size > 4 if shows is None else shows) else "warning"


def _costly_average(gap: Gap, candidates: list[NormCall], by: str) -> Finding:
    """No channel is off by itself, but all together cost more than is tolerated."""
    return Finding(
        "averaged-weights",
        "warning",
        candidates[0].address,
        (
            Evidence("gap", gap.difference, gap.unit, "evaluation minus batch statistics"),
            tolerance_of(gap),
            Evidence(
                "layers", len(candidates), "layers", "with running statistics, none of them stale alone"
            ),
        ),
        f"the weights are averages{f' (by {by})' if by else ''}, and with the running statistics the loss is "
        f"{gap.difference:.3g} higher than with those of the batches: no layer's are far off, but they were "
        "taken with other weights",
        f"{_ESTIMATE_ANEW} after the last update of the average",
        _SOURCE,
        effect=gap.difference / tolerated_gap(gap),
    )


def _unproven_average(candidates: list[NormCall], by: str, inherited: bool) -> Finding:
    why = (
        f"{len(candidates)} batch norms have the running statistics of the reference bit for bit, but other "
        "weights: statistics were taken with weights that aren't these"
        if inherited
        else f"{by} averages weights; whether the running statistics fit the averages is for data to tell"
    )
    return Finding(
        "averaged-weights",
        "warning" if inherited else "advice",
        candidates[0].address,
        (Evidence("layers", len(candidates), "layers", "with running statistics"),),
        why,
        f"run the check-up on data, or at once {_ESTIMATE_ANEW} after the last update of the average",
        _SOURCE,
    )
