"""A mending in the terminal: what was done, the findings before and after, and what was left."""

from rich.console import Group, RenderableType

from convscope.checkup import Mended, Mending
from convscope.core.result import renders
from convscope.report.terminal.checkup import unchanged
from convscope.report.terminal.tables import WHOLE, facts, label, sections, table, title
from convscope.report.wording.formats import write
from convscope.report.wording.given import given_facts
from convscope.report.wording.mending_rows import mending_heading, mending_rows

_REPAIRS = ("Repair", "For", "Outputs changed by#")
_COLUMNS = ("", "before#", "after#")
_NOTE = (
    "outputs changed by: largest change over the largest output, in evaluation mode, where nothing but "
    "rounding may change"
)


@renders(Mending)
def render_mending(found: Mending) -> RenderableType:
    """Return the repairs, the findings and numbers before and after, and what was left with the reason."""
    rows = mending_rows(found)
    return sections(
        title(mending_heading(found)),
        facts(given_facts(found.after)) if found.after.given else None,
        table(_REPAIRS, map(_repair, found.mended), note=_NOTE) if found.mended else None,
        label(f"the loss is that of {found.after.loss_of}", "dim") if found.after.loss_of else None,
        table(_COLUMNS, (row.texts for row in rows)) if rows else None,
        Group(*(label(f"gone: {fault}{_at(address)}", "green") for fault, address in found.gone))
        if found.gone
        else None,
        Group(*(label(f"left: {each.fault}{_at(each.address)}: {each.reason}") for each in found.left))
        if found.left
        else None,
        unchanged(found.state, "the mending", "after all repairs"),
    )


def _at(address: str) -> str:
    """Where a finding is; nothing for one of the whole network."""
    return "" if address in WHOLE else f" at {address}"


def _repair(repair: Mended) -> tuple[object, ...]:
    return (repair.done, ", ".join(repair.faults), write("number", repair.largest_change))
