"""The most expensive rows of each kind: activations, parameters, forward FLOPs, bytes kept for backward."""

from collections.abc import Callable
from dataclasses import dataclass

from convscope.core.finding import Evidence, Finding
from convscope.core.units import format_bytes, format_count, format_percent
from convscope.cost.row import Row, Totals
from convscope.cost.shares import share, sum_of

_METHOD = "the table's rows"


@dataclass(frozen=True)
class _Kind:
    field: str
    fault: str
    unit: str
    noun: str
    write: Callable[[float], str] = format_count


_KINDS = (
    _Kind("activations", "most-activations", "elements", "activations"),
    _Kind("params", "most-parameters", "elements", "parameters"),
    _Kind("forward_flops", "most-forward-flops", "FLOPs", "forward FLOPs"),
    _Kind("saved_bytes", "most-saved-bytes", "B", "bytes kept for the backward pass", format_bytes),
)


def most_expensive(rows: tuple[Row, ...], totals: Totals, count: int = 3) -> tuple[Finding, ...]:
    """Return a finding for each kind of cost, with its most expensive rows and their shares of the total.

    A kind that the network has nothing of (no parameters; nothing kept, in inference) isn't there.

    Args:
        rows: the table.
        totals: its sums.
        count: how many rows each finding names at most.
    """
    return tuple(
        _most(rows, kind, getattr(totals, kind.field), count) for kind in _KINDS if sum_of(rows, kind.field)
    )


def _most(rows: tuple[Row, ...], kind: _Kind, whole: int, count: int) -> Finding:
    ordered = sorted(rows, key=lambda row: -getattr(row, kind.field))
    numbers = {row.address: getattr(row, kind.field) for row in ordered[:count] if getattr(row, kind.field)}
    together = share(sum(numbers.values()), whole)
    named = ", ".join(
        f"{address} {kind.write(number)} ({format_percent(share(number, whole))})"
        for address, number in numbers.items()
    )
    evidence = [Evidence("share of them all", together, "1", _METHOD)]
    for address, number in numbers.items():
        evidence.append(Evidence(address, number, kind.unit, _METHOD))
        evidence.append(Evidence(f"share of {address}", share(number, whole), "1", _METHOD))
    return Finding(
        kind.fault,
        "info",
        next(iter(numbers)),
        tuple(evidence),
        f"{len(numbers)} of {len(rows)} rows {'has' if len(numbers) == 1 else 'have'} "
        f"{format_percent(together)} of the {kind.noun}: {named}",
        source="the table of layers",
    )
