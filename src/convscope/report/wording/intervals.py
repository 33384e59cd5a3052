"""How numbers of a comparison are written: means, intervals and verdicts, in the terminal and on the page."""

from convscope.report.wording.formats import MISSING, number, percent
from convscope.train.comparing import Comparison, Verdict
from convscope.train.comparing.result import Bound
from convscope.train.comparing.statistics import LEAST_PAIRS, Interval

_ERRORS = (".training error", ".validation error", ".error gap", ".error change")
"""Ends of the names of extra measures that are shares of images."""
_SHARES = frozenset({"final_error", "best_error", "train_error", "gap"})
MINUS = "−"
_BOUNDS = {"at most": "≤ ", "at least": "≥ "}


def form_of(quantity: str, scale: str) -> str:
    """Return the form that a quantity's differences are written in: points, ratio or number.

    Example:
        >>> form_of("final_error", "difference"), form_of("steps_to_target", "ratio")
        ('points', 'ratio')
    """
    if scale == "ratio":
        return "ratio"
    return "points" if quantity in _SHARES or quantity.endswith(_ERRORS) else "number"


def written(found: Interval | None, form: str) -> str:
    """Return an interval's mean.

    Example:
        >>> written(Interval(-0.0312, None, None, 0, 0, 1), "points")
        '−3.12 points'
    """
    if found is None:
        return MISSING
    return _value(found.mean, form) + _unit(form)


def bounded(found: Interval | None, form: str, bound: Bound) -> str:
    """Return an interval's mean, with ≤ or ≥ where it is a bound.

    Example:
        >>> bounded(Interval(0.5, 0.4, 0.6, 0, 1, 5), "ratio", "at most")
        '≤ 0.5×'
    """
    text = written(found, form)
    return text if found is None else _BOUNDS.get(bound, "") + text


def span(found: Interval | None, form: str, bound: Bound = "exact") -> str:
    """Return an interval's ends, of a bound the one that it is about; a dash where a single seed has none.

    Example:
        >>> span(Interval(0.1, 0.05, 0.15, 0, 0, 3), "percent")
        '5.0 to 15.0 %'
        >>> span(Interval(2.0, 1.5, 2.5, 0, 0, 3), "ratio")
        '1.5× to 2.5×'
        >>> span(Interval(0.45, 0.34, 0.59, 0, 0, 5), "ratio", "at most")
        'at most 0.59×'
    """
    if found is None or found.low is None or found.high is None:
        return MISSING
    if bound != "exact":
        return f"{bound} {_value(found.high if bound == 'at most' else found.low, form)}"
    if form == "percent":
        return f"{percent(max(found.low, 0.0)).removesuffix(' %')} to {percent(min(found.high, 1.0))}"
    return f"{_value(found.low, form)} to {_value(found.high, form)}"


def written_verdict(verdict: Verdict) -> str:
    """Return a claim's difference with its interval, p and the seeds that it rests on."""
    measure = verdict.claim.measure
    form = form_of(measure.quantity, measure.scale)
    parts = [bounded(verdict.interval, form, verdict.bound)]
    if (ends := span(verdict.interval, form, verdict.bound)) != MISSING:
        parts.append(f"95 % {ends}")
    parts.append("1 seed" if verdict.num_seeds == 1 else f"{verdict.num_seeds} seeds")
    if verdict.p is not None:
        parts.append(f"{kind_of_p(verdict)} p = {verdict.p:.3f}")
    return ", ".join(parts)


def kind_of_p(verdict: Verdict) -> str:
    """Return which p a verdict's is: claims have a direction, and so one side."""
    return "larger one-sided" if verdict.claim.measure.direction == "same" else "one-sided"


def caution(found: Comparison) -> str:
    """Return what to mind about a table's intervals; empty where there are seeds enough."""
    number_of_seeds = len(found.seeds)
    if number_of_seeds >= LEAST_PAIRS:
        return ""
    if number_of_seeds == 1:
        return f"1 seed: no interval; the sign of a difference takes {LEAST_PAIRS} seeds."
    return (
        f"Only {number_of_seeds} seeds: an interval of so few rests on their spread being normal; "
        f"the sign of a difference takes {LEAST_PAIRS}."
    )


def _value(value: float, form: str) -> str:
    if form == "ratio":
        if value == 1:  # exactly: often a bound, whose digits would pretend to be measured
            return "1×"
        if value >= 10:
            return f"{value:.0f}×"
        form_of_ratio = ".3f" if 0.8 < value < 1.25 else ".2g"  # around 1 some percent are a finding
        return f"{value:{form_of_ratio}}×"
    text = f"{abs(100 * value):.3g}" if form == "points" else number(abs(value))
    if not any(digit in text for digit in "123456789"):
        return "0"
    return f"{'+' if value > 0 else MINUS}{text}"


def _unit(form: str) -> str:
    return " points" if form == "points" else ""
