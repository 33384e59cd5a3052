"""Curves over training: the mean over seeds, its interval, and the extremes."""

import itertools
from collections.abc import Callable, Iterable, Sequence

from convscope.train.comparing.result import Curve, CurvePoint
from convscope.train.comparing.statistics import interval
from convscope.train.run import EpochRecord, Measurement, Run, StepRecord

MOST_POINTS = 60

_Measured = EpochRecord | Measurement
_OF_MEASUREMENTS: dict[str, Callable[[_Measured], float]] = {
    "validation_error": lambda record: 1 - record.validation_accuracy,
    "validation_loss": lambda record: record.validation_loss,
}


def curves_of(arm: str, runs: Sequence[Run]) -> tuple[Curve, ...]:
    """Return the curves of an arm from its runs, those that diverged among them as far as they got."""
    curves = [_of_steps(arm, runs)]
    for quantity, number in _OF_MEASUREMENTS.items():
        at = [
            [(record.step, record.step / run.epochs[0].step, number(record)) for record in _measured(run)]
            for run in runs
        ]
        curves.append(Curve(arm, quantity, _points(at)))
    return tuple(curve for curve in curves if curve.points)


def _measured(run: Run) -> list[_Measured]:
    """All measurements of a run, inside epochs and after them, in order; none before its first epoch."""
    every: list[_Measured] = [*run.epochs, *run.measurements] if run.epochs else []
    return sorted(every, key=lambda record: record.step)


def _of_steps(arm: str, runs: Sequence[Run]) -> Curve:
    """The training loss, over stretches of steps that are the same in all runs."""
    last = max((record.step for run in runs for record in run.steps), default=0)
    length = max(1, -(-last // MOST_POINTS))
    per_epoch = next((run.epochs[0].step for run in runs if run.epochs), 0)
    at = [list(_stretches(run.steps, length)) for run in runs]
    points = _points(
        [[(step, step / per_epoch if per_epoch else 0.0, loss) for step, loss in run] for run in at]
    )
    return Curve(arm, "training_loss", points)


def _stretches(steps: Iterable[StepRecord], length: int) -> Iterable[tuple[int, float]]:
    for stretch, records in itertools.groupby(steps, lambda record: (record.step - 1) // length):
        losses = [record.loss for record in records]
        yield (stretch + 1) * length, sum(losses) / len(losses)


def _points(runs: Sequence[Sequence[tuple[int, float, float]]]) -> tuple[CurvePoint, ...]:
    """One point for each step that a run has, over the runs that have it."""
    places = sorted({(step, epoch) for run in runs for step, epoch, _ in run})
    values: dict[int, list[float]] = {step: [] for step, _ in places}
    for run in runs:
        for step, _, value in run:
            values[step].append(value)
    return tuple(
        CurvePoint(step, epoch, found.mean, found.low, found.high, found.least, found.most, found.num_seeds)
        for step, epoch in places
        if (found := interval(values[step])) is not None
    )
