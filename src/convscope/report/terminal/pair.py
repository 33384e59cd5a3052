"""Two reports side by side, in the terminal."""

from collections.abc import Iterable

from rich.console import RenderableType

from convscope.core.result import renders
from convscope.report.side_by_side.differences import Told
from convscope.report.side_by_side.pair import ReportPair
from convscope.report.terminal.tables import UNITS_NOTE, facts, label, sections, table, title
from convscope.report.wording.formats import write

_COLUMNS = ("", "Number", "First#", "Second#", "Second ÷ first#")


@renders(ReportPair)
def render_pair(pair: ReportPair) -> RenderableType:
    """Return the numbers of both, the findings that only one has, and where the page is."""
    rows = []
    for each in pair.differences:
        first, second = (
            f"{write(each.form, value)} {each.unit if value is not None else ''}".strip()
            for value in (each.first, each.second)
        )
        rows.append((each.part, each.name, first, second, write("ratio", each.ratio)))
    return sections(
        title(f"First: {pair.names[0]}; second: {pair.names[1]}"),
        table(_COLUMNS, rows, note=UNITS_NOTE),
        facts((*_told("only the first", pair.only_first), *_told("only the second", pair.only_second))),
        facts(
            (
                ("layers", f"{pair.num_same_layers:,} cost the same, {len(pair.layers):,} differ"),
                ("galleries", pair.galleries or f"not compared: {pair.no_galleries}"),
            )
        ),
        label(f"The page: {pair.page}", "bold"),
    )


def _told(side: str, findings: Iterable[Told]) -> list[tuple[str, str]]:
    return [(side, f"{each.severity} {each.fault} at {each.address}: {each.why}") for each in findings]
