"""A mending in the terminal: what was done, the findings before and after, and what was left."""

from collections.abc import Callable

from rich.console import Group, RenderableType

from convscope.checkup import Checkup, Mended, Mending
from convscope.core.result import renders
from convscope.report.formats import counted, number, write
from convscope.report.terminal.checkup import unchanged
from convscope.report.terminal.tables import label, sections, table, title

_REPAIRS = ("Repair", "For", "Outputs changed by#")
_COLUMNS = ("", "before#", "after#")
_NOTE = "largest change over the largest output, in evaluation mode, where nothing but rounding may change"
_SEVERITIES = ("error", "warning", "advice", "info")


@renders(Mending)
def render_mending(found: Mending) -> RenderableType:
    """Return the repairs, the findings and numbers before and after, and what was left with the reason."""
    changed = found.state is not None and not found.state.unchanged
    where = "on a copy" if changed else "on a copy: your model is as it was"
    return sections(
        title(f"{counted(len(found.mended), 'repairs')} ({where})" if found.mended else "Nothing to mend"),
        table(_REPAIRS, map(_repair, found.mended), note=_NOTE) if found.mended else None,
        table(_COLUMNS, _rows(found)),
        Group(*(label(f"gone: {fault} at {address}", "green") for fault, address in found.gone))
        if found.gone
        else None,
        Group(*(label(f"left: {each.fault} at {each.address}: {each.reason}") for each in found.left))
        if found.left
        else None,
        unchanged(found.state, "the mending", "after all repairs"),
    )


def _repair(repair: Mended) -> tuple[object, ...]:
    return (repair.done, ", ".join(repair.faults), write("number", repair.largest_change))


def _rows(found: Mending) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for severity in _SEVERITIES:
        counts = [_count(checkup, severity) for checkup in (found.before, found.after)]
        if any(counts):
            rows.append((f"findings: {severity}", *map(str, counts)))
    for name, read in _NUMBERS.items():
        values = [read(checkup) for checkup in (found.before, found.after)]
        if any(value is not None for value in values):
            rows.append((name, *("–" if value is None else number(value) for value in values)))
    return rows


def _count(checkup: Checkup, severity: str) -> int:
    return sum(finding.severity == severity for finding in checkup.findings)


def _largest(checkup: Checkup, field: str) -> float | None:
    values = [getattr(layer, field) for layer in checkup.layers if not layer.frozen]
    return max((value for value in values if value is not None), default=None)


_NUMBERS: dict[str, Callable[[Checkup], float | None]] = {
    "loss with running statistics": lambda checkup: checkup.eval_loss,
    "loss with batch statistics": lambda checkup: checkup.batch_loss,
    "gap": lambda checkup: checkup.gap,
    "mean off by σ, worst channel": lambda checkup: _largest(checkup, "mean_residual"),
    "variance off by log, worst channel": lambda checkup: _largest(checkup, "variance_residual"),
}
