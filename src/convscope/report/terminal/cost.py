"""The cost reading in the terminal."""

from collections.abc import Sequence
from functools import partial

from rich.console import Group, RenderableType

from convscope.core.result import renders
from convscope.cost import Cost, Selection
from convscope.report.terminal.fitting import Fitting
from convscope.report.terminal.remedies import render_explanation
from convscope.report.terminal.tables import UNITS_NOTE, facts, label, sections, title
from convscope.report.terminal.timing import render_timings
from convscope.report.terminal.verification import render_verification
from convscope.report.wording.cost_facts import heading, largest_at_peak, left_out, memory_facts, work_facts
from convscope.report.wording.cost_grid import Grid, described, grid_of, optional, overview


@renders(Cost)
def render_cost(cost: Cost, every_call: bool = False) -> RenderableType:
    """Return the table of layers, totals, memory beside the rule of thumb, what isn't counted, and trends.

    Args:
        cost: what to show.
        every_call: one row for each call, however many there are.
    """
    selection, note = (cost.select(), "") if every_call else overview(cost)
    blocks = largest_at_peak(cost)
    return sections(
        title(heading(cost)),
        _rows(selection, note),
        facts(work_facts(cost)),
        Group(title("Memory"), facts(memory_facts(cost))),
        Fitting([lambda: [blocks]]) if blocks.rows else None,
        _left_out(cost),
        Group(title("Where it goes"), *_trends(cost)),
        None if cost.timings is None else render_timings(cost.timings),
        None if cost.explanation is None else render_explanation(cost.explanation),
        None if cost.verification is None else render_verification(cost.verification),
    )


@renders(Selection)
def render_selection(selection: Selection) -> RenderableType:
    """Return the selected rows, with what they sum up to and the whole network's sums."""
    return sections(title(heading(selection)), _rows(selection, described(selection)), _left_out(selection))


def _rows(selection: Selection, note: str) -> Fitting:
    """The table of layers, with as many of its columns as there is room for."""
    below, names = "; ".join(filter(None, (note, UNITS_NOTE))), optional(selection)
    return Fitting([partial(_grids, selection, names[:number], below) for number in range(len(names) + 1)])


def _grids(selection: Selection, hidden: Sequence[str], note: str) -> list[Grid]:
    return [grid_of(selection, hidden, note)]


def _left_out(found: Cost | Selection) -> RenderableType:
    return Group(*(label(line, "dim") for line in left_out(found)))


def _trends(cost: Cost) -> list[RenderableType]:
    """One line for each fact; its numbers, which are in the sentence already, are left to the JSON."""
    if not cost.findings:
        return [label("no trends", "dim")]
    return [facts((finding.fault, finding.why) for finding in cost.findings)]
