"""How numbers of a comparison are written: means, intervals and verdicts, in the terminal and on the page."""

from convscope.report.formats import MISSING, number, percent
from convscope.train.comparing import Verdict
from convscope.train.comparing.result import Bound
from convscope.train.comparing.statistics import Interval

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
    return "points" if quantity in _SHARES else "number"


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


def span(found: Interval | None, form: str) -> str:
    """Return an interval's ends, or a dash where a single seed has none.

    Example:
        >>> span(Interval(0.1, 0.05, 0.15, 0, 0, 3), "percent")
        '5.0 to 15.0 %'
        >>> span(Interval(2.0, 1.5, 2.5, 0, 0, 3), "ratio")
        '1.5× to 2.5×'
    """
    if found is None or found.low is None or found.high is None:
        return MISSING
    if form == "percent":
        return f"{percent(max(found.low, 0.0)).removesuffix(' %')} to {percent(min(found.high, 1.0))}"
    return f"{_value(found.low, form)} to {_value(found.high, form)}"


def written_verdict(verdict: Verdict) -> str:
    """Return a claim's difference with its interval, p and the seeds that it rests on."""
    measure = verdict.claim.measure
    form = form_of(measure.quantity, measure.scale)
    parts = [bounded(verdict.interval, form, verdict.bound)]
    if (ends := span(verdict.interval, form)) != MISSING:
        parts.append(f"95 % {ends}")
    parts.append("1 seed" if verdict.num_seeds == 1 else f"{verdict.num_seeds} seeds")
    if verdict.p is not None:
        parts.append(f"p = {verdict.p:.3f}")
    return ", ".join(parts)


def _value(value: float, form: str) -> str:
    if form == "ratio":
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
