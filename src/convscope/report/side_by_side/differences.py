"""What differs between two reports: numbers, layers and findings, from their JSON.

A report's folder may be from another day or another version; what one of them lacks is None, never zero.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from convscope.report.pages.fields import at

Plain = Mapping[str, Any]
"""A report as its ``report.json`` holds it."""


@dataclass(frozen=True)
class Quantity:
    """A number that both reports may have.

    Attributes:
        part: of the report.
        name: of the number, with what it is of.
        path: in a report's JSON; of a list, how many there are in it.
        form: how it is written: a name in :data:`convscope.report.wording.formats.FORMATS`.
        unit: written behind it, where the format doesn't write it.
    """

    part: str
    name: str
    path: str
    form: str
    unit: str = ""


@dataclass(frozen=True)
class Difference:
    """A number of two reports.

    Attributes:
        part, name, form, unit: see :class:`Quantity`.
        first, second: the numbers; None where a report doesn't have it.
        ratio: second ÷ first, where both are above 0 and not shares.
    """

    part: str
    name: str
    form: str
    unit: str
    first: float | None
    second: float | None
    ratio: float | None


@dataclass(frozen=True)
class LayerDifference:
    """A call of a layer or function that costs something else in the second network, or isn't in both.

    Attributes:
        address: of the call.
        first_op, second_op: what it does; empty where it isn't there.
        first_shape, second_shape: of its output; None where it isn't there.
        first_macs, second_macs: multiply–accumulates, whole batch; None where it isn't there.
        first_params, second_params: elements of its parameters.
        first_saved_bytes, second_saved_bytes: kept for the backward pass.
    """

    address: str
    first_op: str
    second_op: str
    first_shape: tuple[int, ...] | None
    second_shape: tuple[int, ...] | None
    first_macs: int | None
    second_macs: int | None
    first_params: int | None
    second_params: int | None
    first_saved_bytes: int | None
    second_saved_bytes: int | None


@dataclass(frozen=True)
class Told:
    """A finding that only one of two reports has.

    Attributes:
        reading: that found it: ``"checkup"``, ``"stem"``, ``"gallery"`` or ``"cost"``.
        severity, fault, address, why: see :class:`convscope.core.finding.Finding`.
    """

    reading: str
    severity: str
    fault: str
    address: str
    why: str


QUANTITIES = (
    Quantity("Network", "layers and functions that run", "cost.rows", "exact"),
    Quantity("Network", "nodes of the graph, with groups", "graph.nodes", "exact"),
    Quantity("Network", "values that nodes hand on", "graph.edges", "exact"),
    Quantity("Cost", "parameters", "cost.totals.params", "count", "elements"),
    Quantity("Cost", "MACs, forward", "cost.totals.macs", "count", "MACs"),
    Quantity("Cost", "FLOPs of a training step", "cost.totals.step_flops", "count", "FLOPs"),
    Quantity("Cost", "activations", "cost.totals.activations", "count", "elements"),
    Quantity("Cost", "bytes kept for the backward pass", "cost.totals.saved_bytes", "bytes"),
    Quantity("Memory", "allocated at the peak of a step", "cost.forecast.allocated_peak_bytes", "bytes"),
    Quantity("Memory", "reserved at the peak", "cost.forecast.reserved_peak_bytes", "bytes"),
    Quantity("Training", "best validation accuracy", "training.best_accuracy", "percent"),
    Quantity("Training", "validation accuracy at the end", "training.accuracy", "percent"),
    Quantity("Check-up", "batch norms", "counts.norms", "exact"),
    Quantity("Check-up", "errors", "counts.checkup.error", "exact"),
    Quantity("Check-up", "warnings", "counts.checkup.warning", "exact"),
    Quantity("Check-up", "gap between running and batch statistics", "checkup.gap", "number", "nats"),
    Quantity("Fold", "batch norms folded away", "folded.ledger.folded", "exact"),
    Quantity("Fold", "batch norms that stay", "folded.ledger.kept", "exact"),
    Quantity("Fold", "speed once folded, median of paired passes", "folded.speed.speedup", "ratio"),
    Quantity("First layer", "aliased energy", "stem.aliased_share", "percent"),
    Quantity("First layer", "aliased behind the activation", "stem.activated_share", "percent"),
    Quantity("First layer", "aliased for white input", "stem.filter_share", "percent"),
    Quantity("First layer", "filters", "counts.filters", "exact"),
    Quantity("First layer", "dead filters", "counts.dead_filters", "exact"),
    Quantity("Gallery", "units", "counts.units", "exact"),
    Quantity("Gallery", "dead units", "counts.dead_units", "exact"),
)  # fmt: skip
"""What is compared, in the order of the page."""

_READINGS = ("checkup", "stem", "gallery", "cost")
_COLUMNS = ("macs", "params", "saved_bytes")


def differences(first: Plain, second: Plain) -> Iterator[Difference]:
    """Yield every number that at least one of two reports has."""
    for quantity in QUANTITIES:
        one, other = (_number(report, quantity.path) for report in (first, second))
        if one is None and other is None:
            continue
        is_share = quantity.form in ("percent", "number")
        ratio = other / one if one and other and not is_share and one > 0 else None
        yield Difference(quantity.part, quantity.name, quantity.form, quantity.unit, one, other, ratio)


def layer_differences(first: Plain, second: Plain) -> tuple[list[LayerDifference], int]:
    """Return the calls that differ, those of most MACs first, and how many are the same."""
    rows = [{row["address"]: row for row in report["cost"]["rows"]} for report in (first, second)]
    found, same = [], 0
    for address in dict.fromkeys([*rows[0], *rows[1]]):
        one, other = rows[0].get(address), rows[1].get(address)
        if (
            one
            and other
            and all(one[column] == other[column] for column in ("op", "output_shape", *_COLUMNS))
        ):
            same += 1
            continue
        found.append(_layer(address, one, other))
    return sorted(found, key=lambda each: -max(each.first_macs or 0, each.second_macs or 0)), same


def only_in(first: Plain, second: Plain) -> list[Told]:
    """Return the findings of the first report that the second doesn't have; facts (info) aren't findings."""
    known = {(reading, each.fault, each.address) for reading, each in _findings(second)}
    return [each for reading, each in _findings(first) if (reading, each.fault, each.address) not in known]


def _findings(report: Plain) -> Iterator[tuple[str, Told]]:
    for reading in _READINGS:
        for each in (report.get(reading) or {}).get("findings", ()):
            if each["severity"] != "info":
                yield reading, Told(reading, each["severity"], each["fault"], each["address"], each["why"])


def _layer(address: str, one: Plain | None, other: Plain | None) -> LayerDifference:
    def values(row: Plain | None) -> tuple[Any, ...]:
        if row is None:
            return ("", None, None, None, None)
        return (row["op"], tuple(row["output_shape"]), *(row[column] for column in _COLUMNS))

    pairs = (side for pair in zip(values(one), values(other), strict=True) for side in pair)
    return LayerDifference(address, *pairs)


def _number(report: Plain, path: str) -> float | None:
    try:
        value = at(report, path)
    except (KeyError, IndexError, ValueError):
        return None
    if isinstance(value, list):
        return len(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
