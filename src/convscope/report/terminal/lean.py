"""What a lean forward pass saved, in the terminal."""

from rich.console import RenderableType

from convscope.core.result import renders
from convscope.norm import Savings
from convscope.report.terminal.tables import label, sections, table, title
from convscope.report.wording.savings_grid import NOTHING, saves_nothing, savings_grid, savings_title


@renders(Savings)
def render_savings(found: Savings) -> RenderableType:
    """Return the bytes that autograd keeps, in all and layer by layer."""
    grid = savings_grid(found)
    return sections(
        title(savings_title(found)),
        label(NOTHING, "yellow") if saves_nothing(found) else None,
        table(grid.columns, (*grid.rows, *grid.footer), note=grid.note),
    )
