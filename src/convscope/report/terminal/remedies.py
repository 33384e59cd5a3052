"""What would lower the peak of memory, in the terminal."""

from rich.console import Group, RenderableType

from convscope.core.result import renders
from convscope.core.units import format_bytes
from convscope.cost.remedies.values import Explanation, Remedy
from convscope.report.terminal.tables import label, sections, table, title
from convscope.report.wording.cost_grid import Grid
from convscope.report.wording.formats import percent, signed, write

_COLUMNS = ("Change", "Peak#", "Saves#", "of the peak#", "Reserved#", "FLOPs#", "Same result", "What it is")
_NOTE = "each simulated by itself: savings don't add up; FLOPs per item; 1 MiB = 1,048,576 B"
NOTHING_HELPS = "nothing that was tried"


@renders(Explanation)
def render_explanation(explanation: Explanation) -> RenderableType:
    """Return the remedies by effect, how to write those that help, and what doesn't help or can't be done."""
    grid, rest = remedies_grid(explanation), without_effect(explanation)
    written = [line for remedy in helping(explanation) for line in _written(remedy)]
    return sections(
        title(explanation_title(explanation)),
        table(grid.columns, grid.rows, note=grid.note) if grid.rows else label(NOTHING_HELPS, "dim"),
        Group(*written) if written else None,
        Group(*(label(line, "dim") for line in rest)) if rest else None,
    )


def explanation_title(explanation: Explanation) -> str:
    """Return the heading of an explanation."""
    peak = format_bytes(explanation.allocated_peak_bytes)
    return (
        f"{explanation.network}: what would lower the peak of {peak} at a batch of "
        f"{explanation.batch_size}, in {explanation.peak_phase} at {explanation.peak_op}"
    )


def helping(explanation: Explanation) -> list[Remedy]:
    """Return the remedies that lower the peak."""
    return [remedy for remedy in explanation.remedies if remedy.saved_bytes and remedy.saved_bytes > 0]


def remedies_grid(explanation: Explanation) -> Grid:
    """Return what helps, one remedy a row."""
    return Grid(_COLUMNS, tuple(map(_row, helping(explanation))), note=_NOTE)


def _row(remedy: Remedy) -> tuple[str, ...]:
    assert remedy.saved_bytes is not None
    flops = remedy.extra_flops_share
    return (
        remedy.name,
        write("bytes", remedy.allocated_peak_bytes),
        format_bytes(remedy.saved_bytes),
        write("percent", remedy.saved_share),
        write("bytes", remedy.reserved_peak_bytes),
        "" if not flops or abs(flops) < 0.0005 else signed(flops, percent),
        "yes" if remedy.keeps_result else "no",
        remedy.change,
    )


def _written(remedy: Remedy) -> list[RenderableType]:
    lines: list[RenderableType] = [label(f"{remedy.name}: {remedy.how}")]
    return [*lines, label(f"   {remedy.note}", "dim")] if remedy.note else lines


def without_effect(explanation: Explanation) -> list[str]:
    """Return what doesn't help or can't be done, one line each."""
    lines = []
    for remedy in explanation.remedies:
        if remedy.impossible:
            lines.append(f"not possible: {remedy.name}: {remedy.impossible}")
        elif remedy.saved_bytes == 0:
            lines.append(f"no effect: {remedy.name}: {remedy.change}")
        elif remedy.saved_bytes is not None and remedy.saved_bytes < 0:
            more = format_bytes(-remedy.saved_bytes)
            lines.append(f"{more} more: {remedy.name}: {remedy.change}")
    return lines
