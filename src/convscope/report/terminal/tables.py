"""The pieces that all terminal renderings are made of: tables, lists of facts, findings.

Names come from networks, files and folders, so they are never read as mark-up, and control characters in
them are written out instead of being sent to the terminal.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from convscope.core.finding import Finding
from convscope.report.terminal.names import Name
from convscope.report.wording.formats import evidence

UNITS_NOTE = "1 MAC = 2 FLOPs; 1 MiB = 1,048,576 B; all numbers are for the whole batch"

WHOLE = ("", "self", "self#1")
"""Addresses of the whole network, which needs no place."""

GAP = 2
"""Cells between two columns."""
_NAMED = 8  # places of one kind of finding that are named
_TEXT = 12  # cells below which a column of text isn't folded
_STYLES = {"error": "bold red", "warning": "yellow", "advice": "blue", "info": "dim"}


def label(value: Any, style: str = "") -> Text:
    r"""Return a value's text, with control characters written out.

    Example:
        >>> label("conv\x1b[2J").plain
        'conv\\x1b[2J'
    """
    text = "".join(
        character if character.isprintable() or character == "\n" else repr(character)[1:-1]
        for character in str(value)
    )
    return Text(text, style=style, overflow="fold")


class WholeTable(Table):
    """A table whose numbers are whole: where there is no room for that, each row is told in lines."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table, or its rows one below the other."""
        least = [_least_width(column) for column in self.columns]
        if sum(least) + GAP * (len(least) - 1) <= options.max_width:
            yield from super().__rich_console__(console, options)
        else:
            yield Group(*self._told())

    def _told(self) -> Iterator[RenderableType]:
        """Each row as its first cell, and below it the others with their titles; then the note."""
        titles = [str(column.header) for column in self.columns]
        rows = list(zip(*(column.cells for column in self.columns), strict=True))
        if self.show_footer:
            feet = [str(column.footer).split("\n") for column in self.columns]
            rows += zip(*(map(label, foot) for foot in feet), strict=True)
        for first, *others in rows:
            named = zip(titles[1:], map(str, others), strict=True)
            texts = (f"{title}: {cell}" if title else cell for title, cell in named if cell)
            yield Name(label(first))
            yield Padding(label("; ".join(texts)), (0, 0, 0, 3))
        if self.caption:
            yield label(self.caption, "dim")


def _least_width(column: Column) -> int:
    """Cells that a column can't do without: those of whole numbers, of a fixed width, or of a little text."""
    if column.width is not None:
        return column.width
    cells = [label(column.header), label(column.footer), *column.cells]
    widths = [max(map(cell_len, str(cell).split("\n"))) for cell in cells]
    if column.no_wrap:
        return max(widths)
    parts = [cell.part_width for cell in cells if isinstance(cell, Name)]
    return max(min(max(widths), _TEXT), *parts, 0)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, footer: Sequence[str] = (), note: str = ""
) -> WholeTable:
    """Return a table; columns whose title ends with ``#`` hold numbers and are aligned to the right.

    In a terminal that is too narrow for its numbers it tells each row in lines instead of cutting them.

    Args:
        columns: their titles.
        rows: their cells; None is an empty cell.
        footer: cells of a last row, apart from the others.
        note: a line below the table.
    """
    made = WholeTable(
        box=None,
        header_style="dim",
        pad_edge=False,
        show_footer=bool(footer),
        caption=label(note) if note else None,
    )
    made.caption_justify, made.caption_style = "left", "dim"
    for number, title in enumerate(columns):
        numeric = title.endswith("#")
        made.add_column(
            title.removesuffix("#"),
            justify="right" if numeric else "left",
            no_wrap=numeric,
            overflow="fold",
            footer=label(footer[number], "bold") if footer else "",
        )
    for row in rows:
        made.add_row(
            *(cell if isinstance(cell, Text | Name) else label("" if cell is None else cell) for cell in row)
        )
    return made


def facts(pairs: Iterable[tuple[str, str]]) -> Table:
    """Return names and values, one pair a line."""
    made = Table.grid(padding=(0, 2))
    for name, value in pairs:
        made.add_row(Name(label(name, "dim")), label(value))
    return made


def title(text: str) -> Text:
    """Return a heading."""
    return label(text, "bold")


def findings(found: Sequence[Finding], nothing: str = "no findings") -> RenderableType:
    """Return findings with evidence, remedy and source, or a line saying that there are none."""
    return Group(*(finding(each) for each in found)) if found else Text(nothing, style="dim")


def findings_by_kind(found: Sequence[Finding]) -> RenderableType:
    """Return one finding of each kind, and at how many more places the same was found; for many layers."""
    kinds: dict[tuple[str, str, str], list[Finding]] = {}
    for each in found:
        kinds.setdefault((each.fault, each.severity, each.remedy), []).append(each)
    parts: list[RenderableType] = []
    for first, *others in kinds.values():
        parts.append(finding(first))
        if others:
            named = ", ".join(each.address for each in others[:_NAMED])
            more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
            parts.append(Padding(label(f"The same at {named}{more}"), (0, 0, 0, 3)))
    return Group(*parts) if parts else findings(())


def finding(found: Finding, rank: int | None = None) -> RenderableType:
    """Return one finding; ``rank`` is its place in a list."""
    place = f"{rank}. " if rank is not None else ""
    head = Text.assemble(place, (found.severity, _STYLES[found.severity]), "  ", (found.fault, "bold"))
    if found.address not in WHOLE:
        head.append_text(label(f"  at {found.address}", "dim"))
    lines: list[RenderableType] = [label(found.why)]
    numbers = "; ".join(
        f"{each.name}: {evidence(each.value, each.unit, each.name)}" for each in found.evidence
    )
    lines += [label(numbers, "dim")] if numbers else []
    lines += [label(f"What to do: {found.remedy}")] if found.remedy else []
    lines += [label(f"Source: {found.source}", "dim")] if found.source else []
    return Group(head, *(Padding(line, (0, 0, 0, 3)) for line in lines))


def sections(*parts: RenderableType | None) -> Group:
    """Return parts below one another with an empty line between them; None is left out."""
    shown = [part for part in parts if part is not None]
    spaced = [piece for part in shown for piece in (part, Text(""))]
    return Group(*spaced[:-1])
