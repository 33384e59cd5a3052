"""What a conversion of normalisation layers changed, in the terminal."""

import math

from rich.console import RenderableType

from convscope.core.result import renders
from convscope.norm.conversion.result import Conversion, Converted, Difference
from convscope.report.terminal.tables import facts, sections, table, title
from convscope.report.wording.formats import MISSING, counted, error, joined, number, percent

_COLUMNS = ("Layer", "Status", "Before", "After", "Groups#", "Residual#", "Difference#", "Remark")
_NOTE = "difference: of the layer's output in evaluation mode on a random batch, relative to the largest"


@renders(Conversion)
def render_conversion(conversion: Conversion) -> RenderableType:
    """Return every layer, and how far the outputs are from those before."""
    statuses = ("converted", "kept", "refused")
    counts = ", ".join(f"{getattr(conversion, status)} {status}" for status in statuses)
    layers = counted(len(conversion.entries), "layers")
    shown = [("by design", conversion.expected)]
    shown += [(f"{each.what} in {each.mode}", _difference(each)) for each in conversion.differences]
    if not conversion.differences:
        shown.append(("whole network", "not compared: no inputs were given"))
    if conversion.new_parameters:
        shown.append(("new parameters", joined(conversion.new_parameters)))
    return sections(
        title(f"{layers} to {conversion.to}: {counts}"),
        _layers(conversion.entries),
        facts(shown + [("note", note) for note in conversion.notes]),
    )


def _layers(entries: tuple[Converted, ...]) -> RenderableType:
    """The table, without the columns in which no layer has anything."""
    rows = [_row(entry) for entry in entries]
    used = [n for n in range(len(_COLUMNS)) if any(row[n] not in (MISSING, "") for row in rows)]
    columns = [_COLUMNS[n] for n in used]
    note = _NOTE if "Difference#" in columns else ""
    return table(columns, ([row[n] for n in used] for row in rows), note=note)


def _row(entry: Converted) -> tuple[str, ...]:
    converted = entry.status == "converted"
    also = f"also {joined(entry.also)}" if entry.also else ""
    return (
        entry.path or "self",
        entry.status,
        entry.before,
        entry.after if converted else "",
        MISSING if entry.num_groups is None else str(entry.num_groups),
        MISSING if entry.residual is None else percent(entry.residual),
        MISSING if entry.difference is None else error(entry.difference),
        "; ".join(filter(None, (entry.reason, also))),
    )


def _difference(found: Difference) -> str:
    if found.bit_equal:
        return "equal, bit for bit"
    share = percent if 0.01 <= found.max_relative < math.inf else error
    return f"differ by {number(found.max_abs)} at most, {share(found.max_relative)} of the largest"
