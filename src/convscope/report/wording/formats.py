"""How numbers are written, in the terminal and on the page alike.

Every number that a reader sees went through one of these functions, under the name in :data:`FORMATS`; the
page carries that name beside each number, so that anybody can write the number again from the page's data.
A number that isn't there is written as a dash, never as zero.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from convscope.core import units
from convscope.core.units import format_bytes, format_count, format_percent
from convscope.report.wording.sentences import note, sentence

MISSING = "–"


def exact(value: float) -> str:
    """Return a count with all its digits.

    Example:
        >>> exact(62378344)
        '62,378,344'
    """
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def number(value: float) -> str:
    """Return a number with four significant figures, whole numbers with all their digits.

    Example:
        >>> number(0.123456), number(12.0), number(123456.7), number(3.1e-16)
        ('0.1235', '12', '123,457', '3.1e-16')
    """
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    if abs(value) >= 1e4:
        return f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.3g}"
    return f"{value:.4g}"


def doubt(value: float) -> str:
    """Return a standard error with two significant figures.

    Example:
        >>> doubt(0.06682), doubt(math.inf)
        ('0.067', 'inf')
    """
    return f"{value:.2g}"


def with_error(value: float | None, error: float | None) -> str:
    """Return a number with its standard error, no more digits than that leaves it; a dash for None.

    Example:
        >>> with_error(0.9543, 0.06682), with_error(2.25713, 0.0075), with_error(0.1, 0.02)
        ('0.954 ± 0.067', '2.257 ± 0.0075', '0.1 ± 0.02')
        >>> with_error(0.5, None), with_error(None, None)
        ('0.5', '–')
    """
    if value is None or error is None:
        return write("number", value)
    known = value and error and math.isfinite(value) and math.isfinite(error)
    places = 1 - math.floor(math.log10(error)) if known else 0
    return f"{number(round(value, places) if known else value)} ± {doubt(error)}"


percent = format_percent


def signed(value: float, written: Callable[[float], str]) -> str:
    """Return a number with its sign, + or −, as a format writes it; without one if it is written as zero.

    Example:
        >>> signed(0.012, percent), signed(-0.25, percent), signed(-1e-9, percent)
        ('+1.2 %', '−25.0 %', '0.00 %')
    """
    text = written(abs(value))
    return f"{'+' if value > 0 else '−'}{text}" if any(digit in text for digit in "123456789") else text


def ratio(value: float) -> str:
    """Return a ratio with two decimals and a times sign.

    Example:
        >>> ratio(1.2345)
        '1.23×'
    """
    return f"{value:.2f}×"


def seconds(value: float) -> str:
    """Return a duration in the unit that suits it.

    Example:
        >>> seconds(0.00123), seconds(2.5), seconds(125)
        ('1.23 ms', '2.50 s', '2 min 5 s')
    """
    if value >= 60:
        return f"{int(value) // 60} min {int(value) % 60} s"
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(value) >= size:
            scaled = value / size
            return f"{scaled:.{0 if scaled >= 100 else 1 if scaled >= 10 else 2}f} {unit}"
    return f"{value * 1e9:.0f} ns"


def error(value: float) -> str:
    """Return a relative error with one decimal.

    Example:
        >>> error(3.14e-16), error(0)
        ('3.1e-16', '0')
    """
    return "0" if value == 0 else f"{value:.1e}"


def shape(value: Sequence[int]) -> str:
    """Return a tensor's shape.

    Example:
        >>> shape((96, 55, 55))
        '96 × 55 × 55'
    """
    return " × ".join(str(size) for size in value) or "scalar"


def window(value: Any) -> str:
    """Return the size of a receptive field (or of any height and width), in pixels.

    Example:
        >>> window({"size": (11, 11), "stride": (4, 4), "offset": (0, 0)})
        '11 × 11'
    """
    return shape(value["size"] if isinstance(value, dict) else value)


def size(value: Sequence[Any]) -> str:
    """Return how many items a list has.

    Example:
        >>> size(["a", "b"])
        '2'
    """
    return exact(len(value))


def joined(value: Sequence[Any]) -> str:
    """Return the items of a list, separated by commas.

    Example:
        >>> joined(["astronaut", "coffee"])
        'astronaut, coffee'
    """
    return ", ".join(str(item) for item in value)


FORMATS: dict[str, Callable[[Any], str]] = {
    "bytes": format_bytes,
    "count": format_count,
    "doubt": doubt,
    "error": error,
    "exact": exact,
    "joined": joined,
    "note": note,
    "number": number,
    "percent": percent,
    "ratio": ratio,
    "seconds": seconds,
    "sentence": sentence,
    "shape": shape,
    "size": size,
    "text": str,
    "window": window,
}
"""The name of each format, as ``data-format`` says it on the page, and its function."""

# The unit of a finding's evidence decides how it is written, and what stands behind it.
_UNITS: dict[str, tuple[str, str]] = {
    "B": ("bytes", ""),
    "bytes": ("bytes", ""),
    "1": ("number", ""),
    "": ("number", ""),
    "ratio": ("number", ""),
    "share": ("percent", ""),
    "%": ("number", " %"),
    "s": ("seconds", ""),
    "x": ("ratio", ""),
    "×": ("ratio", ""),
}
_LARGE_COUNTS = frozenset({"MACs", "FLOPs", "params", "parameters", "elements", "activations", "values"})


def write(name: str, value: Any) -> str:
    """Return a value as the format of that name writes it; a dash for None.

    Example:
        >>> write("bytes", 2048), write("bytes", None)
        ('2.00 KiB', '–')
    """
    return MISSING if value is None else FORMATS[name](value)


def evidence_format(unit: str, name: str = "", value: Any = None) -> tuple[str, str]:
    """Return the format for an evidence's unit, and the text that follows the number.

    Args:
        unit: of the evidence.
        name: of the evidence; a plain number that is called a share is written in percent.
        value: the number; a single one has its unit in the singular.

    Example:
        >>> evidence_format("MACs"), evidence_format("1", "share of MACs"), evidence_format("pixels", "", 1)
        (('count', ' MACs'), ('percent', ''), ('number', ' pixel'))
    """
    if unit in ("", "1") and "share" in name.split():
        return "percent", ""
    if unit in _UNITS:
        return _UNITS[unit]
    written = singular(unit) if value == 1 else unit
    return ("count" if unit in _LARGE_COUNTS else "number"), f" {written}"


def singular(noun: str) -> str:
    """Return an English plural's singular; words that aren't plurals stay.

    Example:
        >>> singular("channels"), singular("batches"), singular("loss"), singular("σ")
        ('channel', 'batch', 'loss', 'σ')
    """
    if noun.endswith(("ches", "sses")):
        return noun[:-2]
    return noun[:-1] if noun.endswith("s") and not noun.endswith("ss") else noun


def counted(count: int, plural: str) -> str:
    """Return a count with its noun.

    Example:
        >>> counted(1, "batches"), counted(2000, "images")
        ('1 batch', '2,000 images')
    """
    return units.counted(count, singular(plural), plural)


def evidence(value: Any, unit: str, name: str = "") -> str:
    """Return the number of a finding's evidence with its unit.

    Example:
        >>> evidence(27_000_000_000, "FLOPs"), evidence(0.94, "1"), evidence(None, "B")
        ('27.0 G FLOPs', '0.94', '–')
    """
    form, following = evidence_format(unit, name, value)
    return write(form, value) + (following if value is not None else "")
