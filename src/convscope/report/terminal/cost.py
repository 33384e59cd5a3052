"""The cost reading in the terminal."""

from collections.abc import Sequence
from functools import partial

from rich.console import Group, RenderableType

from convscope.core.result import renders
from convscope.cost import Cost, Selection
from convscope.report.cost_facts import (
    heading,
    largest_at_peak,
    left_out,
    memory_facts,
    work_facts,
)
from convscope.report.cost_grid import OPTIONAL, Grid, described, grid_of, overview
from convscope.report.terminal.fitting import Fitting, grid_table
from convscope.report.terminal.remedies import render_explanation
from convscope.report.terminal.tables import UNITS_NOTE, facts, label, sections, title
from convscope.report.terminal.timing import render_timings
from convscope.report.terminal.verification import render_verification


@renders(Cost)
def render_cost(cost: Cost) -> RenderableType:
    """Return the table of layers, totals, memory beside the rule of thumb, what isn't counted, and trends."""
    selection, note = overview(cost)
    blocks = largest_at_peak(cost)
    return sections(
        title(heading(cost.network, cost.batch_size, cost.input_shapes, cost.plan)),
        _rows(selection, note),
        facts(work_facts(cost)),
        Group(title("Memory"), facts(memory_facts(cost))),
        grid_table(blocks) if blocks.rows else None,
        Group(*(label(line, "dim") for line in left_out(cost))),
        Group(title("Where it goes"), *_trends(cost)),
        None if cost.timings is None else render_timings(cost.timings),
        None if cost.explanation is None else render_explanation(cost.explanation),
        None if cost.verification is None else render_verification(cost.verification),
    )


@renders(Selection)
def render_selection(selection: Selection) -> RenderableType:
    """Return the selected rows, with what they sum up to and the whole network's sums."""
    subject = (selection.network, selection.batch_size, selection.input_shapes, selection.plan)
    return sections(title(heading(*subject)), _rows(selection, described(selection)))


def _rows(selection: Selection, note: str) -> Fitting:
    """The table of layers, with as many of its columns as there is room for."""
    below = "; ".join(filter(None, (note, UNITS_NOTE)))
    return Fitting(
        [partial(_grids, selection, OPTIONAL[:number], below) for number in range(len(OPTIONAL) + 1)]
    )


def _grids(selection: Selection, hidden: Sequence[str], note: str) -> list[Grid]:
    return [grid_of(selection, hidden, note)]


def _trends(cost: Cost) -> list[RenderableType]:
    """One line for each fact; its numbers, which are in the sentence already, are left to the JSON."""
    if not cost.findings:
        return [label("no trends", "dim")]
    return [facts((finding.fault, finding.why) for finding in cost.findings)]
