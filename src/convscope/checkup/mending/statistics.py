"""The repair of running statistics: all of them estimated anew, from the data, and tried."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from convscope.checkup.judging.residuals import residuals
from convscope.checkup.mending.evidence import lacking
from convscope.checkup.mending.repairs import repairs
from convscope.checkup.mending.result import Left, Mended
from convscope.checkup.mending.trial import Split, distance, split
from convscope.checkup.mending.workshop import Workshop
from convscope.checkup.plan import Progress
from convscope.core.errors import ConvscopeError
from convscope.core.finding import Finding
from convscope.core.units import counted
from convscope.norm import Recalibration, RecalibrationPlan, recalibrate
from convscope.norm.recalibration.plan import Progress as Course
from convscope.norm.recalibration.processes import Processes

_OF_ERRORS = ("teacher-statistics", "missing-statistics")
_SETTLED = 0.1  # what one pass may leave of a residual; above it, layers are measured one after the other
_CONSTANT = 1e-5  # deviation over mean that rounding makes of a constant
_MOST_MOMENTUM = 0.5


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
    """Estimate the running statistics anew, given enough data; the old ones stay unless these are better.

    One pass over the data, or, if that leaves a residual above 0.1, one layer after the other. With losses,
    new statistics are better if they don't make the loss worse; without, if they are nearer to the layers'
    inputs. Both are judged on batches that weren't estimated from, where there are five or more. A channel
    that is constant on the data keeps its variance.
    """
    asking = []
    for finding in findings:
        if _is_of_counter(workshop, finding):
            yield Left(finding.fault, finding.address, _counter_alone(workshop))
        elif _is_of_values(workshop, finding):
            asking.append(finding)
    if not asking:
        return
    try:
        found, refusal, tried = _tried(workshop)
    except ConvscopeError as error:
        found, refusal, tried = None, f"the statistics can't be estimated: {error.given}", ""
    if found is None or refusal:
        for finding in asking:
            yield Left(finding.fault, finding.address, refusal)
        return
    count = sum(layer.status == "recalibrated" for layer in found.layers)
    yield Mended(
        tuple(dict.fromkeys(finding.fault for finding in asking)),
        tuple(dict.fromkeys(finding.address for finding in asking)),
        f"running statistics of {counted(count, 'layer')} estimated anew over "
        f"{counted(found.num_samples, 'sample')} ({found.method}): {tried}",
    )


def _is_of_values(workshop: Workshop, finding: Finding) -> bool:
    """Whether statistics have wrong values; not if a counter has, or if a layer has no statistics."""
    if finding.fault == "momentum-convention":  # that of 0.5 was left, and says nothing
        return getattr(workshop.layer(finding.address), "momentum", 0.0) < _MOST_MOMENTUM
    return finding.fault not in _OF_ERRORS or finding.severity == "error"


def _is_of_counter(workshop: Workshop, finding: Finding) -> bool:
    """Whether statistics may be too young by their counter, but aren't shown to be off by the data."""
    if finding.fault != "young-statistics" or finding.severity != "advice" or workshop.data is None:
        return False
    norms = [norm for norm in workshop.observation.norms if norm.address == finding.address]
    found = [residuals(norm, each) for norm in norms for each in (norm.population, norm.batch_population)]
    return not any(bool(each.stale.any()) for each in found if each is not None)


def _counter_alone(workshop: Workshop) -> str:
    few = lacking(workshop.observation.norms)
    return "only the counter speaks for it, and " + (
        few or "the data don't show these statistics to be wrong"
    )


def _tried(workshop: Workshop) -> tuple[Recalibration | None, str, str]:
    """Estimate and try; what was found, why the old statistics stay, and how the new ones were tried."""
    if workshop.data is None:
        return None, "the statistics need data to be estimated from", ""
    parts = split(workshop.data, workshop.observation.num_batches)
    refusal = _agreed(lacking(workshop.observation.norms, parts.share))
    if refusal:
        return None, f"the old statistics stay: {refusal}", ""
    has_losses = workshop.observation.gap is not None
    tape = workshop.observation.tape
    before = 0.0 if has_losses else distance(workshop.model, parts.tried, tape)
    held = _variances(workshop.model)
    found = _recalibrated(workshop, parts, has_losses)
    if not found.applied:
        return found, f"the old statistics stay: {_reason(found, parts)}", ""
    _keep_of_constants(held)
    if has_losses:
        return found, "", f"the loss on {parts.words} {_by_loss(found)}"
    after = distance(workshop.model, parts.tried, tape)
    course = f"on {parts.words} {_course(before, after)} to the layers' inputs, over all channels"
    worse = _agreed("" if after < before else f"the new ones aren't nearer to layers' inputs: {course}")
    if worse:
        found.undo()
        return found, f"the old statistics stay: {worse}", ""
    return found, "", course


def _course(before: float, after: float) -> str:
    """How much nearer statistics have come: one ratio, as the table has each layer's residual."""
    if after < before:
        return f"{before / after:.2g} times as near" if after else "as near as can be"
    return f"{before / after:.2g} times as near" if math.isfinite(after) else "no number"


def _agreed(refusal: str) -> str:
    """The first refusal of any process, since statistics are those of all."""
    return next((each for each in Processes(None).each(lambda: refusal) if each), "")


def _reason(found: Recalibration, parts: Split) -> str:
    losses = found.held_out
    if losses is None or not losses.is_worse:
        return found.reason
    error = "" if losses.error is None else f" ± {losses.error:.2g}"
    return (
        f"the loss on {parts.words} would rise by {losses.after - losses.before:.3g}{error}, "
        f"from {losses.before:.4g} to {losses.after:.4g}"
    )


def _by_loss(found: Recalibration) -> str:
    losses = found.held_out
    return "" if losses is None else f"{losses.before:.4g} before, {losses.after:.4g} after"


def _variances(model: nn.Module) -> list[tuple[nn.Module, Tensor]]:
    """Copies of the running variances that there are."""
    kept = ((module, getattr(module, "running_var", None)) for module in model.modules())
    return [(module, variance.clone()) for module, variance in kept if isinstance(variance, Tensor)]


@torch.no_grad()
def _keep_of_constants(held: list[tuple[nn.Module, Tensor]]) -> None:
    """Give channels that were constant their variance back: data without spread says nothing of it.

    Nothing that was estimated behind them changes, for the constant is normalised to 0 by any variance.
    """
    for module, old in held:
        mean, new = module.running_mean, module.running_var
        assert isinstance(mean, Tensor)
        assert isinstance(new, Tensor)
        constant = (new.double() <= (_CONSTANT * mean.double()).square()) & old.isfinite() & (old > 0)
        new.copy_(torch.where(constant, old, new))


def _recalibrated(workshop: Workshop, parts: Split, has_losses: bool) -> Recalibration:
    def tell(course: Course) -> None:
        if workshop.plan.progress is not None:
            purpose = f"estimating statistics, pass {course.number}"
            workshop.plan.progress(Progress(purpose, course.num_batches, course.total_batches))

    settings: dict[str, Any] = {"plan": RecalibrationPlan(progress=tell)}
    if has_losses:
        settings |= {"held_out": parts.tried, "loss": workshop.criterion}
    found = recalibrate(workshop.model, parts.estimated, **settings)
    if found.applied and (found.residual_after or 0.0) > _SETTLED:
        found.undo()
        return recalibrate(workshop.model, parts.estimated, method="sequential", **settings)
    return found
