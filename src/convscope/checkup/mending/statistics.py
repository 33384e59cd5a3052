"""The repair of running statistics: all of them estimated anew, from the data, once."""

from collections.abc import Iterator

from convscope.checkup.mending.repairs import repairs
from convscope.checkup.mending.result import Left, Mended
from convscope.checkup.mending.workshop import Workshop
from convscope.checkup.plan import Progress
from convscope.core.errors import ConvscopeError
from convscope.core.finding import Finding
from convscope.norm import Recalibration, RecalibrationPlan, recalibrate
from convscope.norm.recalibration.plan import Progress as Course

_OF_ERRORS = ("teacher-statistics", "missing-statistics")
_SETTLED = 0.1  # what one pass may leave of a residual; above it, layers are measured one after the other


@repairs(
    "train-eval-gap",
    "stale-statistics",
    "young-statistics",
    "non-finite-statistics",
    "momentum-convention",
    "half-statistics",
    "averaged-weights",
    "teacher-statistics",
    "missing-statistics",
)
def statistics(workshop: Workshop, findings: tuple[Finding, ...]) -> Iterator[Mended | Left]:
    """Estimate the running statistics anew; the old ones stay if the new ones make the loss worse.

    One pass over the data, or, if that leaves a residual above 0.1, one layer after the other.
    """
    findings = tuple(finding for finding in findings if _is_of_values(finding))
    if not findings:
        return
    if workshop.data is None:
        for finding in findings:
            yield Left(finding.fault, finding.address, "the statistics need data to be estimated from")
        return
    try:
        found = _recalibrated(workshop)
    except ConvscopeError as error:
        for finding in findings:
            yield Left(finding.fault, finding.address, f"the statistics can't be estimated: {error.given}")
        return
    if not found.applied:
        for finding in findings:
            yield Left(finding.fault, finding.address, f"the old statistics stay: {found.reason}")
        return
    count = sum(layer.status == "recalibrated" for layer in found.layers)
    off = tuple(
        "unknown" if size is None else f"{size:.2g}" for size in (found.residual_before, found.residual_after)
    )
    yield Mended(
        tuple(dict.fromkeys(finding.fault for finding in findings)),
        tuple(dict.fromkeys(finding.address for finding in findings)),
        f"running statistics of {count} layers estimated anew over {found.num_samples} samples "
        f"({found.method}): largest residual {off[0]} before, {off[1]} after",
    )


def _is_of_values(finding: Finding) -> bool:
    """Whether statistics have wrong values; not if a counter has, or if a layer has no statistics."""
    return finding.fault not in _OF_ERRORS or finding.severity == "error"


def _recalibrated(workshop: Workshop) -> Recalibration:
    def tell(course: Course) -> None:
        if workshop.plan.progress is not None:
            purpose = f"estimating statistics, pass {course.number}"
            workshop.plan.progress(Progress(purpose, course.num_batches, course.total_batches))

    has_losses = workshop.observation.gap is not None
    held_out = workshop.data if has_losses else None
    plan = RecalibrationPlan(progress=tell)
    found = recalibrate(
        workshop.model,
        workshop.data,
        held_out=held_out,
        loss=workshop.loss if has_losses else None,
        plan=plan,
    )
    if found.applied and (found.residual_after or 0.0) > _SETTLED:
        found.undo()
        return recalibrate(
            workshop.model,
            workshop.data,
            method="sequential",
            held_out=held_out,
            loss=workshop.loss if has_losses else None,
            plan=plan,
        )
    return found
