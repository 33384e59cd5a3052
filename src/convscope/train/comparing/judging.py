"""Verdicts: what the pairs of seeds say about a claim, and how arms differ from the baseline.

A claim is supported where both the paired t interval over seeds and the exact sign-flip test exclude the
contrary, contradicted where both exclude the claim, and can't be told otherwise; never with fewer than five
pairs, because the exact test can't reach 5 % with fewer. ``same`` is two such tests, one on either side of
the margin. Where runs never reached the target, a verdict has to hold whenever they would have reached it.
Where a run diverged and so has no such number, there is none: the seeds that are left were chosen by what
happened in them. Claims are judged one by one, without a correction for their number.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from convscope.train.comparing.experiment import Claim, Contrast
from convscope.train.comparing.pairs import Pairs, Runs, pairs_of
from convscope.train.comparing.result import Difference, Verdict, VerdictName
from convscope.train.comparing.statistics import (
    LEAST_PAIRS,
    MOST_ENUMERATED,
    Interval,
    interval,
    sign_flip_p,
)

_LEVEL = 0.05
_BOUNDS = {
    "at least": "a bound: runs that never reached the target count with their last step",
    "at most": "a bound: runs that never reached the target count with their last step",
    "open": "runs that never reached the target leave the size open",
}

_Judged = tuple[VerdictName, float | None, str]


def judge(claim: Claim, runs: Runs, num_seeds: int) -> Verdict:
    """Return what the runs say about a claim.

    Args:
        claim: what is claimed.
        runs: of every arm, in the order of the seeds.
        num_seeds: of the table.
    """
    contrast = claim.measure
    pairs = pairs_of(contrast, runs, num_seeds)
    verdict, p, sentence = _judged(contrast, pairs)
    remarks = [sentence, *_missing(pairs)]
    if pairs.bound != "exact":
        remarks.append(_BOUNDS[pairs.bound])
    return Verdict(
        claim=claim,
        verdict=verdict,
        interval=_interval(pairs, contrast),
        values=tuple(_on_scale(value, contrast) for value in pairs.told),
        p=p,
        num_seeds=len(pairs.known),
        bound=pairs.bound,
        sentence="; ".join(remarks),
    )


def _missing(pairs: Pairs) -> list[str]:
    whys = {
        "absent": "have no such number",
        "diverged": "have no such number, because a run diverged",
        "no ratio": "have a zero or a negative number, of which there is no ratio",
    }
    total = len(pairs.values)
    counts = [(pairs.missing(why), told) for why, told in whys.items()]  # type: ignore[arg-type]
    return [f"{number} of {total} seeds {told}" for number, told in counts if number]


def _judged(contrast: Contrast, pairs: Pairs) -> _Judged:
    if not pairs.known:
        return "can't be told", None, "no seed has the numbers that the claim is about"
    found = _judged_same(contrast, pairs) if contrast.direction == "same" else _judged_side(contrast, pairs)
    if len(pairs.known) < LEAST_PAIRS:
        return "can't be told", found[1], _too_few(len(pairs.known))
    if pairs.missing("diverged") or pairs.missing("no ratio"):
        return "can't be told", found[1], "the seeds that are left aren't a fair choice"
    return found


def _judged_side(contrast: Contrast, pairs: Pairs) -> _Judged:
    side = -1 if contrast.direction == "lower" else 1
    beyond = side * _margin(contrast)
    lows = [_shifted(value.low, beyond) for value in pairs.known]
    highs = [_shifted(value.high, beyond) for value in pairs.known]
    # For the claim the ends that are worst for it, against it those that are best.
    worst, best = (lows, highs) if side > 0 else (highs, lows)
    p = _p(worst, side)
    if _excluded(worst, side):
        return "supported", p, _agreeing(worst, side, "as claimed")
    if _excluded(best, -side):
        return "contradicted", p, _agreeing(best, -side, "against the claim")
    return "can't be told", p, _undecided(worst, best)


def _judged_same(contrast: Contrast, pairs: Pairs) -> _Judged:
    margin = _margin(contrast)
    lows, highs = ([value[end] for value in pairs.known] for end in (0, 1))
    above = [_shifted(low, -margin) for low in lows]
    below = [_shifted(high, margin) for high in highs]
    sides = _p(above, 1), _p(below, -1)
    p = None if None in sides else max(side for side in sides if side is not None)
    if _excluded(above, 1) and _excluded(below, -1):
        return "supported", p, "the whole interval lies within the margin"
    farther = [_shifted(low, margin) for low in lows], [_shifted(high, -margin) for high in highs]
    if _excluded(farther[0], 1) or _excluded(farther[1], -1):
        return "contradicted", p, "the whole interval lies beyond the margin"
    if not all(map(math.isfinite, (*above, *below))):
        return "can't be told", p, "runs that never reached the target may lie beyond the margin"
    return "can't be told", p, "the interval reaches over the margin, or the exact test doesn't exclude it"


def _excluded(values: Sequence[float], side: int) -> bool:
    """Whether interval and exact test both say that the values lie on one side of zero."""
    if not all(map(math.isfinite, values)):
        return False
    found, p = interval(values), sign_flip_p(values, side)
    end = None if found is None else found.low if side > 0 else found.high
    return end is not None and end * side > 0 and (p is None or p <= _LEVEL)


def _p(values: Sequence[float], side: int) -> float | None:
    return sign_flip_p(values, side) if all(map(math.isfinite, values)) else None


def _undecided(worst: Sequence[float], best: Sequence[float]) -> str:
    if not all(map(math.isfinite, worst)):
        return "runs that never reached the target could turn it round"
    if not all(map(math.isfinite, best)):
        return "the bound doesn't reach the claim"
    found = interval(worst)
    holds_zero = found is None or found.low is None or found.high is None or found.low <= 0 <= found.high
    return "the interval holds both signs" if holds_zero else "the exact test doesn't exclude chance"


def _margin(contrast: Contrast) -> float:
    if contrast.margin is None:
        return 0.0
    return math.log(contrast.margin) if contrast.scale == "ratio" else contrast.margin


def _shifted(value: float, margin: float) -> float:
    """A value seen from the margin; exactly 0 where rounding alone would decide."""
    return 0.0 if math.isclose(value, margin, rel_tol=1e-9) else value - margin


def _agreeing(values: Sequence[float], side: int, how: str) -> str:
    number = sum(value * side > 0 for value in values)
    tests = (
        "interval and exact test agree"
        if len(values) <= MOST_ENUMERATED
        else f"by the interval alone: the exact test takes at most {MOST_ENUMERATED} pairs"
    )
    return f"{number} of {len(values)} seeds go {how}; {tests}"


def _too_few(number: int) -> str:
    pairs = "one pair" if number == 1 else f"{number} pairs"
    return f"with {pairs} of seeds the sign can't be established: that takes {LEAST_PAIRS}"


def _interval(pairs: Pairs, contrast: Contrast) -> Interval | None:
    """Mean and interval on the contrast's own scale: a ratio's are geometric."""
    found = interval([value for value in pairs.told if value is not None])
    if found is None or contrast.scale == "difference":
        return found
    numbers = (found.mean, found.low, found.high, found.least, found.most)
    mean, low, high, least, most = (None if each is None else math.exp(each) for each in numbers)
    return replace(found, mean=mean or 0.0, low=low, high=high, least=least or 0.0, most=most or 0.0)


def _on_scale(value: float | None, contrast: Contrast) -> float | None:
    return math.exp(value) if value is not None and contrast.scale == "ratio" else value


def difference(contrast: Contrast, runs: Runs, num_seeds: int) -> Difference:
    """Return how one arm differs from another, two-sided.

    Args:
        contrast: of a single arm against a single one.
        runs: of every arm, in the order of the seeds.
        num_seeds: of the table.
    """
    pairs = pairs_of(contrast, runs, num_seeds)
    either = (_judged(replace(contrast, direction=side), pairs)[0] for side in ("lower", "higher"))
    told = [value for value in pairs.told if value is not None]
    return Difference(
        arm=contrast.arms[0],
        against=contrast.against[0],
        quantity=contrast.quantity,
        scale=contrast.scale,
        interval=_interval(pairs, contrast),
        p=sign_flip_p(told),
        bound=pairs.bound,
        is_established="supported" in either,
    )
