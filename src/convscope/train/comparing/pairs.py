"""What a contrast is, seed by seed: differences or logarithms of ratios, with the ends that they lie between.

A run that never reached the target would have needed its last step or any number after it. So a value made
of such a run isn't known, but lies between two ends, one of them infinite; nothing is put in its place.
"""

import math
import statistics as averages
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from convscope.train.comparing.experiment import Contrast
from convscope.train.comparing.result import Bound, SeedRun

Runs = Mapping[str, Sequence[SeedRun]]
"""The runs of every arm, in the order of the table's seeds."""

Missing = Literal["absent", "diverged", "no ratio"]
_NOISE = 1e-12  # relative; two equal numbers that were reached by different sums


class Ends(NamedTuple):
    """Where a number lies: ``low`` and ``high`` are the same where it is known."""

    low: float
    high: float


@dataclass(frozen=True)
class Pairs:
    """One value for each seed, on the scale of the test: differences, or logarithms of ratios.

    Attributes:
        values: their ends; why there is none where a seed has none.
    """

    values: tuple[Ends | Missing, ...]

    @property
    def known(self) -> list[Ends]:
        """The values that there are."""
        return [value for value in self.values if isinstance(value, Ends)]

    @property
    def bound(self) -> Bound:
        """What a mean of the values can say."""
        has_no_low = any(value.low == -math.inf for value in self.known)
        has_no_high = any(value.high == math.inf for value in self.known)
        if has_no_low and has_no_high:
            return "open"
        if all(value.low == value.high for value in self.known):
            return "exact"
        return "at least" if has_no_high else "at most"

    @property
    def told(self) -> tuple[float | None, ...]:
        """For each seed the end that :attr:`bound` is about; None where it has none."""
        end = {"exact": "low", "at least": "low", "at most": "high", "open": ""}[self.bound]
        return tuple(
            getattr(value, end) if isinstance(value, Ends) and end else None for value in self.values
        )

    def missing(self, why: Missing) -> int:
        """Return how many seeds have no value for a reason."""
        return sum(value == why for value in self.values)


def pairs_of(contrast: Contrast, runs: Runs, num_seeds: int) -> Pairs:
    """Return what a contrast is, seed by seed."""
    return Pairs(tuple(_pair(contrast, runs, place) for place in range(num_seeds)))


def _pair(contrast: Contrast, runs: Runs, place: int) -> Ends | Missing:
    ours = _side(contrast, contrast.arms, runs, place)
    theirs: Ends | Missing = Ends(contrast.reference, contrast.reference)
    if contrast.against:
        theirs = _side(contrast, contrast.against, runs, place)
    for side in (ours, theirs):
        if not isinstance(side, Ends):
            return side
    assert isinstance(ours, Ends)
    assert isinstance(theirs, Ends)
    if contrast.scale == "difference":
        return Ends(_less(ours.low, theirs.high), _less(ours.high, theirs.low))
    if min(ours.low, theirs.low) <= 0:
        return "no ratio"
    return Ends(_log_ratio(ours.low, theirs.high), _log_ratio(ours.high, theirs.low))


def _side(contrast: Contrast, arms: Sequence[str], runs: Runs, place: int) -> Ends | Missing:
    found = []
    for arm in arms:
        run = runs[arm][place]
        number = run.number(contrast.quantity)
        if number is not None and math.isfinite(number):
            found.append(Ends(float(number), float(number)))
        elif number is None and contrast.quantity == "steps_to_target" and run.has_ended:
            found.append(Ends(float(run.steps), math.inf))
        else:
            return "diverged" if run.state == "diverged" else "absent"
    return _REDUCTIONS[contrast.reduce](found)


def _mean(values: Sequence[Ends]) -> Ends:
    return Ends(averages.fmean(v.low for v in values), averages.fmean(v.high for v in values))


def _lowest(values: Sequence[Ends]) -> Ends:
    """A run that reached the target before others gave up is the quickest of them, for certain."""
    return Ends(min(v.low for v in values), min(v.high for v in values))


def _highest(values: Sequence[Ends]) -> Ends:
    return Ends(max(v.low for v in values), max(v.high for v in values))


def _spread(values: Sequence[Ends]) -> Ends:
    low, high = _lowest(values), _highest(values)
    return Ends(max(_less(high.low, low.high), 0.0), _less(high.high, low.low))


def _change(values: Sequence[Ends]) -> Ends:
    first, last = values[0], values[-1]
    return Ends(_less(last.low, first.high), _less(last.high, first.low))


_REDUCTIONS: dict[str, Callable[[Sequence[Ends]], Ends]] = {
    "mean": _mean,
    "lowest": _lowest,
    "highest": _highest,
    "spread": _spread,
    "change": _change,
}


def _less(a: float, b: float) -> float:
    return 0.0 if math.isclose(a, b, rel_tol=_NOISE) and math.isfinite(a) else a - b


def _log_ratio(a: float, b: float) -> float:
    """ln(a / b) for numbers above 0, of which one may be infinite."""
    if math.isinf(a) or math.isinf(b):
        return math.inf if a > b else -math.inf
    return 0.0 if math.isclose(a, b, rel_tol=_NOISE) else math.log(a / b)
