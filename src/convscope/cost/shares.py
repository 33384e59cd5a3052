"""Which part of a network's cost its first convolution and its fully connected layers have."""

from collections.abc import Iterable, Sequence

from convscope.cost.row import Row
from convscope.cost.rule_of_thumb import is_pool

CONVOLUTIONS = ("convolution", "transposed_convolution")


def stem_of(rows: Iterable[Row]) -> Row | None:
    """Return the first convolution's row, or None."""
    return next((row for row in rows if row.op in CONVOLUTIONS), None)


def counted_outputs(rows: Iterable[Row]) -> int:
    """Return the elements of the outputs of convolution, linear and pooling layers, as course notes count."""
    return sum(row.activations for row in rows if row.op in (*CONVOLUTIONS, "linear") or is_pool(row))


def linear_rows(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of fully connected layers."""
    return [row for row in rows if row.op == "linear"]


def sum_of(rows: Iterable[Row], field: str) -> int:
    """Return the sum of a field over rows."""
    return sum(getattr(row, field) for row in rows)


def share(part: int, whole: int) -> float:
    """Return ``part / whole``; 0 where there is no whole.

    Example:
        >>> share(1, 4), share(1, 0)
        (0.25, 0.0)
    """
    return part / whole if whole else 0.0


def stem_share(rows: Sequence[Row]) -> float | None:
    """Return the first convolution's share of the outputs that course notes count; None without one."""
    stem = stem_of(rows)
    return None if stem is None else share(stem.activations, counted_outputs(rows))


def linear_share(rows: Sequence[Row], params: int) -> float | None:
    """Return the fully connected layers' share of the parameters; None without such layers."""
    linear = linear_rows(rows)
    return share(sum_of(linear, "params"), params) if linear else None
