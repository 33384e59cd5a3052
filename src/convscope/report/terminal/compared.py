"""Networks side by side, and sweeps, in the terminal."""

from collections.abc import Sequence
from functools import partial

from rich.console import Group, RenderableType

from convscope.core.result import renders
from convscope.cost import SideBySide, Sweep
from convscope.report.terminal.fitting import Fitting
from convscope.report.terminal.tables import UNITS_NOTE, facts, label, sections, title
from convscope.report.wording.cost_compared import (
    OPTIONAL,
    left_out_along,
    left_out_beside,
    refusals,
    side_by_side_grids,
    sweep_grid,
)
from convscope.report.wording.cost_grid import Grid
from convscope.report.wording.formats import counted


@renders(SideBySide)
def render_side_by_side(found: SideBySide) -> RenderableType:
    """Return one column for each network, with ratios to the first."""
    notes = UNITS_NOTE + (f"; × is relative to {found.networks[0].name}" if len(found.networks) > 1 else "")
    return sections(
        title(f"{counted(len(found.networks), 'networks')}, {found.plan}, on {found.device}"),
        Fitting([partial(side_by_side_grids, found, number) for number in (6, 5, 4, 3, 2, 1)]),
        label(notes, "dim"),
        Group(*(label(line, "dim") for line in left_out_beside(found))),
        facts(refusals(found)) if found.refused else None,
    )


@renders(Sweep)
def render_sweep(sweep: Sweep) -> RenderableType:
    """Return one line for each value."""
    return sections(
        title(f"{sweep.network}: cost over {sweep.axis}, {sweep.plan}, on {sweep.device}"),
        Fitting([partial(_grids, sweep, OPTIONAL[:number]) for number in range(len(OPTIONAL) + 1)]),
        label(UNITS_NOTE, "dim"),
        Group(*(label(line, "dim") for line in left_out_along(sweep))),
        facts(refusals(sweep)) if sweep.refused else None,
    )


def _grids(sweep: Sweep, hidden: Sequence[str]) -> list[Grid]:
    return [sweep_grid(sweep, hidden)]
