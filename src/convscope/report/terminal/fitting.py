"""Tables that show as much as the terminal is wide enough for."""

from collections.abc import Callable, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.measure import Measurement
from rich.table import Table

from convscope.report.cost_grid import Grid
from convscope.report.terminal.tables import label, table

_ANY_WIDTH = 10_000


class Fitting:
    """The first of several ways to show the same that fits into the terminal; the last one if none does.

    Args:
        ways: each makes the grids to be shown below one another, the widest way first.
    """

    def __init__(self, ways: Sequence[Callable[[], Sequence[Grid]]]) -> None:
        self._ways = ways

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the tables of the way that fits."""
        anything = options.update_width(_ANY_WIDTH)
        tables: list[Table] = []
        for way in self._ways:
            tables = [grid_table(grid) for grid in way()]
            if max(Measurement.get(console, anything, each).maximum for each in tables) <= options.max_width:
                break
        spaced = [piece for each in tables for piece in (each, "")]
        yield Group(*spaced[:-1])


def grid_table(grid: Grid) -> Table:
    """Return a grid as a terminal's table; rows of sums are one cell each, several lines high."""
    footer = ["\n".join(lines) for lines in zip(*grid.footer, strict=True)]
    rows = [[label(cell, _style(place, cell)) for place, cell in enumerate(row)] for row in grid.rows]
    return table(grid.columns, rows, footer=footer, note=grid.note)


def _style(place: int, cell: str) -> str:
    return "dim" if place == 1 or cell in ("0", "0 B") else ""
