"""The table of layers as texts in a grid, for the terminal and for notebooks alike.

Which rows and columns are shown is decided here: long tables are rolled up, and whatever is left out is
said with the way to see it.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from convscope.core.units import format_bytes, format_count
from convscope.cost import COLUMNS, Cost, Row, Selection
from convscope.cost.views.selection import Step
from convscope.report.wording.formats import counted, percent, window

MOST_ROWS = 60
_FEWEST_ROWS = 5
_NUM_TOP = 40
_TITLES = {
    "params": "Params",
    "activations": "Activations",
    "macs": "MACs",
    "backward_flops": "Backward FLOPs",
    "elementwise_ops": "Elementwise ops",
    "saved_bytes": "Saved bytes",
}
_BACKWARD = ("backward_flops", "saved_bytes")
OPTIONAL = ("elementwise_ops", "backward_flops", "sees", "output", "activations")
"""Columns that a narrow place leaves out, the first one first."""
_LAST_TO_GO = ("params", "macs", "saved_bytes")


@dataclass(frozen=True)
class Grid:
    """Texts in rows and columns.

    Attributes:
        columns: titles; one that ends with ``#`` is of numbers, to be aligned to the right.
        rows: their cells.
        footer: rows of sums.
        note: a sentence below.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    footer: tuple[tuple[str, ...], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class _Shown:
    """A column: its key, title, and how it writes a row."""

    key: str
    title: str
    cell: Callable[[Row], str]


def overview(cost: Cost) -> tuple[Selection, str]:
    """Return the rows that a reader sees first, and a sentence on what they are if they aren't all calls.

    A table of more than 60 rows is rolled up as deep as 60 rows allow; where modules aren't nested enough
    for that, its most expensive rows are taken.
    """
    whole = cost.select()
    if len(whole.rows) <= MOST_ROWS:
        return whole, ""
    best = whole.rolled_up(1)
    for depth in range(2, 2 + max(row.path.count(".") for row in whole.rows)):
        deeper = whole.rolled_up(depth)
        if len(deeper.rows) > MOST_ROWS:
            break
        best = deeper
    every = "every call: --all, or print(cost.select())"
    if _FEWEST_ROWS <= len(best.rows) <= MOST_ROWS:
        return best, f"{counted(len(whole.rows), 'calls')}, rolled up to depth {best.depth}; {every}"
    top = whole.sorted_by("step_flops").top(_NUM_TOP)
    return top, f"the {_NUM_TOP} of {counted(len(whole.rows), 'rows')} with most step FLOPs; {every}"


def described(selection: Selection) -> str:
    """Return the steps that led to a selection, in words; empty for all rows in order of execution."""
    return ", ".join(filter(None, map(_said, selection.steps)))


def _said(step: Step) -> str:
    if step.kind == "where":
        return "matching " + " or ".join(map(str, step.arguments))
    if step.kind == "sorted_by":
        return f"sorted by {step.arguments[0]}"
    if step.kind == "rolled_up":
        deep = step.arguments[0]
        return "rolled up per module" + ("" if deep is None else f" to depth {deep}")
    if step.num_after == step.num_before:
        return ""
    number = f" {step.num_after}" if step.num_after > 1 else ""
    return f"the first{number} of {counted(step.num_before, 'rows')}"


def grid_of(selection: Selection, hidden: Collection[str] = (), note: str = "") -> Grid:
    """Return the rows of a selection as texts, with their sums.

    Args:
        selection: what to show.
        hidden: keys of columns to leave out, of those in :data:`OPTIONAL`.
        note: a sentence below.
    """
    possible = _columns(selection)
    left_out = [each for each in possible if each.key in hidden and each.key != selection.order]
    columns = [each for each in possible if each not in left_out]
    rows = tuple(tuple(column.cell(row) for column in columns) for row in selection.rows)
    return Grid(
        tuple(column.title for column in columns),
        rows,
        _footer(selection, columns),
        without(note, [each.title for each in left_out]),
    )


def optional(selection: Selection) -> tuple[str, ...]:
    """Return the columns that a narrow place leaves out, the first one first.

    What a table is sorted by stays; where that is a column of its own, any other number makes room for it.
    """
    return OPTIONAL if selection.order in ("", *_TITLES) else (*OPTIONAL, *_LAST_TO_GO)


def without(note: str, titles: Sequence[str]) -> str:
    """Return a note that also names columns which were left out.

    Example:
        >>> without("2 rows", ["Sees px#"])
        '2 rows; too narrow here for: Sees px'
    """
    named = ", ".join(title.removesuffix("#") for title in titles)
    return "; ".join(filter(None, (note, named and f"too narrow here for: {named}")))


def _columns(selection: Selection) -> list[_Shown]:
    trained = any(selection.totals[name] for name in _BACKWARD)
    names = [name for name in _TITLES if trained or name not in _BACKWARD]
    if selection.order and selection.order not in names:
        names.append(selection.order)
    return [
        _Shown("layer", "Layer", _layer),
        _Shown("kind", "", lambda row: row.op or row.type_name),
        _Shown("output", "Output", _output),
        _Shown("sees", "Sees px#", _sees),
        *map(_numbers, names),
    ]


def _sees(row: Row) -> str:
    if row.receptive_field is not None:
        return window(row.receptive_field.size)
    return "all" if row.sees_whole_image else ""


def _numbers(name: str) -> _Shown:
    return _Shown(name, f"{_TITLES.get(name, name)}#", lambda row: amount(name, getattr(row, name)))


def amount(name: str, number: float) -> str:
    """Return a number of the column of that name, in the form that its unit asks for.

    Example:
        >>> amount("saved_bytes", 2048), amount("macs", 2048)
        ('2.00 KiB', '2.05 k')
    """
    return format_bytes(number) if COLUMNS[name].unit == "B" else format_count(number)


def _layer(row: Row) -> str:
    return row.address + (f" (×{row.calls:,})" if row.calls > 1 else "")


def _output(row: Row) -> str:
    if row.phase == "unused":
        return ""
    return "×".join(map(str, row.output_shape)) or "scalar"


def _footer(selection: Selection, columns: list[_Shown]) -> tuple[tuple[str, ...], ...]:
    """One line for the whole table; three for a part of it: the part, its share, the whole network."""

    def line(title: str, write: Callable[[str], str]) -> tuple[str, ...]:
        return (title, *(write(column.key) if column.key in COLUMNS else "" for column in columns[1:]))

    whole = line("Total" if selection.is_whole else "Whole network", lambda n: amount(n, selection.totals[n]))
    if selection.is_whole:
        return (whole,)
    shown = line("Shown", lambda name: amount(name, selection.shown[name]))
    return shown, line("Share", lambda name: percent(selection.share(name))), whole
