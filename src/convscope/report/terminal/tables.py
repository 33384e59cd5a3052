"""The pieces that all terminal renderings are made of: tables, lists of facts, findings.

Names come from networks, files and folders, so they are never read as mark-up, and control characters in
them are written out instead of being sent to the terminal.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from convscope.core.finding import Finding
from convscope.report.formats import evidence
from convscope.report.terminal.names import Name

UNITS_NOTE = "1 MAC = 2 FLOPs; 1 MiB = 1,048,576 B; all numbers are for the whole batch"

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


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, footer: Sequence[str] = (), note: str = ""
) -> Table:
    """Return a table; columns whose title ends with ``#`` hold numbers and are aligned to the right.

    Args:
        columns: their titles.
        rows: their cells; None is an empty cell.
        footer: cells of a last row, apart from the others.
        note: a line below the table.
    """
    made = Table(
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


def finding(found: Finding, rank: int | None = None) -> RenderableType:
    """Return one finding; ``rank`` is its place in a list."""
    place = f"{rank}. " if rank is not None else ""
    head = Text.assemble(place, (found.severity, _STYLES[found.severity]), "  ", (found.fault, "bold"))
    if found.address not in ("", "self", "self#1"):
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
