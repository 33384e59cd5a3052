"""Units of every number that convscope reports, and how they are written.

1 MAC (multiply–accumulate) = 2 FLOPs; this is the only place that says so in code. Bytes are written in
binary units (1 MiB = 2**20 B), counts in decimal ones (1 G = 10**9).
"""

import re
from decimal import Decimal

from convscope.core.errors import ConvscopeError

FLOPS_PER_MAC = 2
KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40

_BYTE_UNITS = {
    "b": 1, "kib": KIB, "mib": MIB, "gib": GIB, "tib": TIB,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip
_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?"
_PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def format_count(count: float) -> str:
    """Return a count with three significant figures and a decimal prefix.

    Example:
        >>> format_count(1_135_256_096), format_count(999), format_count(34_944)
        ('1.14 G', '999', '34.9 k')
    """
    for size, prefix in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if abs(count) >= size * (1 - 0.5 / 1000):  # what would round to 1000 of the next smaller prefix
            return f"{_three_figures(count / size)} {prefix}"
    return f"{count:,.0f}" if float(count).is_integer() else f"{count:.3g}"


def format_bytes(num_bytes: float) -> str:
    """Return a number of bytes with three significant figures and a binary prefix.

    Example:
        >>> format_bytes(4 * 2**20), format_bytes(2 * 128 * 290_400 * 4), format_bytes(512)
        ('4.00 MiB', '284 MiB', '512 B')
    """
    for size, unit in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if abs(num_bytes) >= size * (1 - 0.5 / KIB):  # what would round to 1024 of the next smaller unit
            return f"{_three_figures(num_bytes / size)} {unit}"
    return f"{num_bytes:,.0f} B"


def size_to_give(num_bytes: int) -> str:
    """Return a number of bytes, rounded up, as it can be given to :func:`parse_bytes`.

    Example:
        >>> size_to_give(918 * 2**20 + 1), size_to_give(2000), size_to_give(1404 * 2**20)
        ('919MiB', '2KiB', '1404MiB')
    """
    size, unit = (MIB, "MiB") if num_bytes >= MIB else (KIB, "KiB")
    return f"{-(-num_bytes // size)}{unit}"


def format_percent(share: float) -> str:
    """Return a share (1 is all) in percent with one decimal; two for shares below 1 %.

    Example:
        >>> format_percent(0.9398), format_percent(0.00123), format_percent(0)
        ('94.0 %', '0.12 %', '0.0 %')
    """
    return f"{100 * share:.{2 if 0 < abs(share) < 0.01 else 1}f} %"


def parse_bytes(text: str, name: str = "memory size") -> int:
    """Return the number of bytes that a text such as ``"24GiB"`` or ``"512 MB"`` names.

    Args:
        text: a number and a unit; ``Gb`` means gigabits elsewhere and is refused, ``gb`` is read as GB.
        name: of what is given, for errors.

    Raises:
        ConvscopeError: the text isn't a positive number followed by a unit of bytes.

    Example:
        >>> parse_bytes("24GiB"), parse_bytes("1.5 MB"), parse_bytes("1e3 kB")
        (25769803776, 1500000, 1000000)
    """
    match = re.fullmatch(rf"\s*({_NUMBER})\s*([a-zA-Z]+)\s*", text)
    number, unit = (_number(match[1]), match[2]) if match else (Decimal(0), "")
    is_bits = re.fullmatch("[KMGT]i?b", unit) is not None
    if number <= 0 or is_bits or unit.lower() not in _BYTE_UNITS:
        advice = "write it as 24GiB, 512MiB or 16GB"
        if number > 0 and (is_bits or unit.lower() in tuple("kmgt")):
            sizes = [
                f"{text.strip().removesuffix(unit).strip()}{unit[0].upper()}{rest}" for rest in ("iB", "B")
            ]
            advice = f"{'a small b is bits: ' if is_bits else ''}do you mean {' or '.join(sizes)}?"
        raise ConvscopeError(f"{name} {text!r}", "a positive number and a unit", advice)
    return _representable(text, number * _BYTE_UNITS[unit.lower()])


def parse_count(text: str, name: str = "count", unit: str = "") -> int:
    """Return the count that a text such as ``"5G"`` or ``"25.6M"`` names, with decimal prefixes.

    Args:
        text: a number, with or without a prefix.
        name: of what is given, for errors.
        unit: what is counted, which may follow, such as ``"FLOPs"``; in any case.

    Raises:
        ConvscopeError: the text isn't a positive number, with or without a prefix.

    Example:
        >>> parse_count("5G"), parse_count("25.6 M"), parse_count("30,000"), parse_count("1e3")
        (5000000000, 25600000, 30000, 1000)
        >>> parse_count("5 GFLOPs", unit="FLOPs")
        5000000000
    """
    counted_unit = f"(?i:{re.escape(unit)}|{re.escape(unit.removesuffix('s'))})?"
    match = re.fullmatch(rf"\s*({_NUMBER})\s*([kKMGT]?)\s*{counted_unit}\s*", text)
    number = _number(match[1]) if match else Decimal(0)
    if match is None or number <= 0:
        raise ConvscopeError(
            f"{name} {text!r}", "a positive number", "write it as 5G, 25.6M, 300k, 30000 or 3e4"
        )
    return _representable(text, number * _PREFIXES[match[2].lower()])


def _number(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


def _representable(text: str, value: Decimal) -> int:
    if value >= 2**63:
        raise ConvscopeError(f"{text!r}", "less than 2**63, which no machine has", "write a smaller number")
    return round(value)


def _three_figures(value: float) -> str:
    decimals = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{decimals}f}"


def counted(count: int, singular: str, plural: str = "") -> str:
    """Return a count with its noun.

    Args:
        count: how many.
        singular: the noun of one.
        plural: of several; with an s where it isn't given.

    Example:
        >>> counted(1, "forward pass", "forward passes"), counted(2000, "image")
        ('1 forward pass', '2,000 images')
    """
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"
