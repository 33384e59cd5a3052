"""Verdicts: what the pairs of seeds say about a claim, and how arms differ from the baseline.

A claim is supported where both the paired t interval over seeds and the exact sign-flip test exclude the
contrary, contradicted where both exclude the claim, and can't be told otherwise; never with fewer than five
pairs, because the exact test can't reach 5 % with fewer. Claims are judged one by one, without a correction
for their number.
"""

import math
import statistics as averages
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from convscope.train.comparing.experiment import Claim, Contrast
from convscope.train.comparing.result import Difference, SeedRun, Verdict, VerdictName
from convscope.train.comparing.statistics import LEAST_PAIRS, Interval, interval, sign_flip_p

_LEVEL = 0.05

Runs = Mapping[str, Sequence[SeedRun]]
"""The runs of every arm, in the order of the table's seeds."""

_REDUCTIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": averages.fmean,
    "lowest": min,
    "highest": max,
    "spread": lambda values: max(values) - min(values),
    "change": lambda values: values[-1] - values[0],
}


@dataclass(frozen=True)
class Pairs:
    """One value for each seed, on the scale of the test: differences, or logarithms of ratios.

    Attributes:
        values: None where a seed is missing.
        is_bound: whether a value counts with the last step of a run that never reached the target.
    """

    values: tuple[float | None, ...]
    is_bound: bool

    @property
    def known(self) -> list[float]:
        """The values that there are."""
        return [value for value in self.values if value is not None]


@dataclass(frozen=True)
class _Side:
    value: float
    is_censored: bool


def pairs_of(contrast: Contrast, runs: Runs, num_seeds: int) -> Pairs:
    """Return what a contrast is, seed by seed."""
    values: list[float | None] = []
    is_bound = False
    for place in range(num_seeds):
        ours = _side(contrast, contrast.arms, runs, place)
        theirs = _side(contrast, contrast.against, runs, place) if contrast.against else None
        if ours is None or (theirs is None and contrast.against):
            values.append(None)
            continue
        other = theirs or _Side(contrast.reference, is_censored=False)
        is_bound |= ours.is_censored or other.is_censored
        values.append(_value(contrast, ours, other))
    return Pairs(tuple(values), is_bound)


def _side(contrast: Contrast, arms: Sequence[str], runs: Runs, place: int) -> _Side | None:
    numbers, censored = [], False
    for arm in arms:
        run = runs[arm][place]
        number = run.number(contrast.quantity)
        if number is None and contrast.quantity == "steps_to_target" and run.has_ended:
            number, censored = float(run.steps), True
        if number is None or not math.isfinite(number):
            return None
        numbers.append(float(number))
    return _Side(_REDUCTIONS[contrast.reduce](numbers), censored)


def _value(contrast: Contrast, ours: _Side, theirs: _Side) -> float | None:
    """Difference or logarithm of the ratio; 0 where censoring leaves the sign open."""
    if contrast.scale == "ratio" and min(ours.value, theirs.value) <= 0:
        return None
    a, b = ours.value, theirs.value
    both = ours.is_censored and theirs.is_censored
    if both or (ours.is_censored and a <= b) or (theirs.is_censored and b <= a):
        return 0.0
    return math.log(a / b) if contrast.scale == "ratio" else a - b


def on_scale(found: Interval | None, contrast: Contrast) -> Interval | None:
    """Return an interval of logarithms as one of ratios; one of differences as it is."""
    if found is None or contrast.scale == "difference":
        return found
    ends = (None if end is None else math.exp(end) for end in (found.low, found.high))
    low, high = ends
    return Interval(math.exp(found.mean), low, high, math.exp(found.least), math.exp(found.most),
                    found.num_seeds)  # fmt: skip


def judge(claim: Claim, runs: Runs, num_seeds: int) -> Verdict:
    """Return what the runs say about a claim.

    Args:
        claim: what is claimed.
        runs: of every arm, in the order of the seeds.
        num_seeds: of the table.
    """
    contrast = claim.measure
    pairs = pairs_of(contrast, runs, num_seeds)
    known = pairs.known
    verdict, p, sentence = _judged(contrast, known)
    if len(known) < num_seeds:
        sentence += f"; {num_seeds - len(known)} of {num_seeds} seeds have no such number"
    if pairs.is_bound:
        sentence += "; runs that never reached the target count with their last step, so it is a bound"
    values = tuple(
        math.exp(value) if value is not None and contrast.scale == "ratio" else value
        for value in pairs.values
    )
    found = on_scale(interval(known), contrast)
    return Verdict(claim, verdict, found, values, p, len(known), pairs.is_bound, sentence)


def _judged(contrast: Contrast, values: Sequence[float]) -> tuple[VerdictName, float | None, str]:
    if not values:
        return "can't be told", None, "no seed has the numbers that the claim is about"
    if contrast.direction == "same":
        return _judged_same(contrast, values)
    side = -1 if contrast.direction == "lower" else 1
    margin = _margin(contrast)
    shifted = [value - side * margin for value in values]
    p, contrary = sign_flip_p(shifted, side), sign_flip_p(shifted, -side)
    if len(values) < LEAST_PAIRS:
        return "can't be told", p, _too_few(len(values))
    found = interval(shifted)
    assert found is not None
    if _beyond(found, side) and (p is None or p <= _LEVEL):
        return "supported", p, _agreeing(shifted, side, "as claimed")
    if _beyond(found, -side) and (contrary is None or contrary <= _LEVEL):
        return "contradicted", p, _agreeing(shifted, -side, "against the claim")
    why = "the interval holds both signs" if _holds_zero(found) else "the exact test doesn't exclude chance"
    return "can't be told", p, why


def _judged_same(contrast: Contrast, values: Sequence[float]) -> tuple[VerdictName, float | None, str]:
    margin, found, p = _margin(contrast), interval(values), sign_flip_p(values)
    assert found is not None
    if len(values) < LEAST_PAIRS or found.low is None or found.high is None:
        return "can't be told", p, _too_few(len(values))
    if -margin <= found.low and found.high <= margin:
        return "supported", p, "the whole interval lies within the margin"
    if found.low > margin or found.high < -margin:
        return "contradicted", p, "the whole interval lies beyond the margin"
    return "can't be told", p, "the interval reaches over the margin"


def _margin(contrast: Contrast) -> float:
    if contrast.margin is None:
        return 0.0
    return math.log(contrast.margin) if contrast.scale == "ratio" else contrast.margin


def _beyond(found: Interval, side: int) -> bool:
    """Whether the whole interval lies on one side of zero."""
    end = found.low if side > 0 else found.high
    return end is not None and end * side > 0


def _holds_zero(found: Interval) -> bool:
    return found.low is None or found.high is None or found.low <= 0 <= found.high


def _agreeing(values: Sequence[float], side: int, how: str) -> str:
    number = sum(value * side > 0 for value in values)
    return f"{number} of {len(values)} seeds go {how}; interval and exact test agree"


def _too_few(number: int) -> str:
    pairs = "one pair" if number == 1 else f"{number} pairs"
    return f"with {pairs} of seeds the sign can't be established: that takes {LEAST_PAIRS}"


def difference(contrast: Contrast, runs: Runs, num_seeds: int) -> Difference:
    """Return how one arm differs from another, two-sided.

    Args:
        contrast: of a single arm against a single one.
        runs: of every arm, in the order of the seeds.
        num_seeds: of the table.
    """
    pairs = pairs_of(contrast, runs, num_seeds)
    either = (_judged(replace(contrast, direction=side), pairs.known)[0] for side in ("lower", "higher"))
    return Difference(
        contrast.arms[0],
        contrast.against[0],
        contrast.quantity,
        contrast.scale,
        on_scale(interval(pairs.known), contrast),
        sign_flip_p(pairs.known),
        pairs.is_bound,
        "supported" in either,
    )
