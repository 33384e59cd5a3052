"""Tables that show as much as the terminal is wide enough for."""

from collections.abc import Callable, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table

from convscope.report.terminal.names import Name
from convscope.report.terminal.tables import GAP, label, table
from convscope.report.wording.cost_grid import Grid


class Fitting:
    """The first of several ways to show the same that fits into the terminal.

    If none fits, the last one is shown with its names broken; if that doesn't fit either, row by row. Numbers
    are never broken.

    Args:
        ways: each makes the grids to be shown below one another, the widest way first.
    """

    def __init__(self, ways: Sequence[Callable[[], Sequence[Grid]]]) -> None:
        self._ways = ways

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the tables of the way that fits."""
        grids: Sequence[Grid] = ()
        for way in self._ways:
            grids = way()
            if all(_total(_widths(grid)) <= options.max_width for grid in grids):
                break
        spaced = [piece for grid in grids for piece in (_table(grid, options.max_width), "")]
        yield Group(*spaced[:-1])


def _table(grid: Grid, room: int) -> Table:
    """A grid as a terminal's table; rows of sums are one cell each, several lines high."""
    footer = ["\n".join(lines) for lines in zip(*grid.footer, strict=True)]
    rows = [[_cell(cell, place, grid) for place, cell in enumerate(row)] for row in grid.rows]
    made = table(grid.columns, rows, footer=footer, note=grid.note)
    widths = _widths(grid)
    if _total(widths) > room:
        for column, width in zip(made.columns, _narrowed(grid, widths, room), strict=True):
            column.width = width
    return made


def _narrowed(grid: Grid, widths: list[int], room: int) -> list[int]:
    """The widths with those of names made smaller: the first column's first, and no more than need be."""
    names = [place for place, title in enumerate(grid.columns) if not title.endswith("#")]
    widths = list(widths)
    for least in (_word_width, _part_width):
        for place in names:
            whole = [grid.columns[place], *(line[place] for line in grid.footer)]
            cells = [least(Name(label(row[place]))) for row in grid.rows]
            too_wide = max(_total(widths) - room, 0)
            widths[place] -= min(too_wide, max(widths[place] - max([*map(len, whole), *cells]), 0))
    return widths


def _word_width(name: Name) -> int:
    return name.word_width


def _part_width(name: Name) -> int:
    return name.part_width


def _widths(grid: Grid) -> list[int]:
    """The width of each column with nothing broken."""
    lines = [[title.removesuffix("#") for title in grid.columns], *grid.rows, *grid.footer]
    return [max(label(cell).cell_len for cell in column) for column in zip(*lines, strict=True)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _cell(cell: str, place: int, grid: Grid) -> object:
    numeric = grid.columns[place].endswith("#")
    text = label(cell, "dim" if (place == 1 and not numeric) or cell in ("0", "0 B") else "")
    return text if numeric else Name(text)
