"""What would lower the peak of memory, in the terminal."""

from rich.console import Group, RenderableType

from convscope.core.result import renders
from convscope.core.units import format_bytes
from convscope.cost.remedies.values import Explanation, Remedy
from convscope.report.formats import percent, write
from convscope.report.terminal.tables import label, sections, table, title

_COLUMNS = ("Change", "Peak#", "Saves#", "of the peak#", "Reserved#", "FLOPs#", "Same result", "What it is")
_NOTE = "each simulated by itself: savings don't add up; FLOPs per item; 1 MiB = 1,048,576 B"


@renders(Explanation)
def render_explanation(explanation: Explanation) -> RenderableType:
    """Return the remedies by effect, how to write those that help, and what doesn't help or can't be done."""
    peak = format_bytes(explanation.allocated_peak_bytes)
    helping = [remedy for remedy in explanation.remedies if remedy.saved_bytes and remedy.saved_bytes > 0]
    return sections(
        title(
            f"{explanation.network}: what would lower the peak of {peak} at a batch of "
            f"{explanation.batch_size}, in {explanation.peak_phase} at {explanation.peak_op}"
        ),
        table(_COLUMNS, map(_row, helping), note=_NOTE)
        if helping
        else label("nothing that was tried", "dim"),
        Group(*(line for remedy in helping for line in _written(remedy))) if helping else None,
        _rest(explanation),
    )


def _row(remedy: Remedy) -> tuple[object, ...]:
    assert remedy.saved_bytes is not None
    flops = remedy.extra_flops_share
    return (
        remedy.name,
        write("bytes", remedy.allocated_peak_bytes),
        format_bytes(remedy.saved_bytes),
        write("percent", remedy.saved_share),
        write("bytes", remedy.reserved_peak_bytes),
        "" if not flops or abs(flops) < 0.0005 else f"{'+' if flops > 0 else '−'}{percent(abs(flops))}",
        "yes" if remedy.keeps_result else "no",
        remedy.change,
    )


def _written(remedy: Remedy) -> list[RenderableType]:
    lines: list[RenderableType] = [label(f"{remedy.name}: {remedy.how}")]
    return [*lines, label(f"   {remedy.note}", "dim")] if remedy.note else lines


def _rest(explanation: Explanation) -> RenderableType | None:
    lines = []
    for remedy in explanation.remedies:
        if remedy.impossible:
            lines.append(f"not possible: {remedy.name}: {remedy.impossible}")
        elif remedy.saved_bytes == 0:
            lines.append(f"no effect: {remedy.name}: {remedy.change}")
        elif remedy.saved_bytes is not None and remedy.saved_bytes < 0:
            more = format_bytes(-remedy.saved_bytes)
            lines.append(f"{more} more: {remedy.name}: {remedy.change}")
    return Group(*(label(line, "dim") for line in lines)) if lines else None
