"""How cost readings and savings look in a notebook: real tables, to be copied, searched and sorted by eye.

The texts are those of the terminal; only their mark-up is made here. Importing this registers one rendering
for each result that has more than the terminal's text to show.
"""

from markupsafe import Markup

from convscope.core.result import renders_html
from convscope.cost import Cost, Explanation, Selection, SideBySide, Sweep, Timings, Verification
from convscope.norm import Savings
from convscope.report.html import block, folded, html_facts, html_table, html_title, quiet
from convscope.report.terminal.remedies import (
    NOTHING_HELPS,
    explanation_title,
    helping,
    remedies_grid,
    without_effect,
)
from convscope.report.terminal.tables import UNITS_NOTE
from convscope.report.terminal.timing import between_facts, step_facts, timings_grid, timings_title
from convscope.report.terminal.verification import (
    verification_facts,
    verification_grid,
    verification_title,
)
from convscope.report.wording.cost_compared import (
    left_out_along,
    left_out_beside,
    refusals,
    side_by_side_grids,
    sweep_grid,
)
from convscope.report.wording.cost_facts import heading, largest_at_peak, left_out, memory_facts, work_facts
from convscope.report.wording.cost_grid import described, grid_of, overview
from convscope.report.wording.formats import counted
from convscope.report.wording.savings_grid import NOTHING, saves_nothing, savings_grid, savings_title


@renders_html(Cost)
def cost_html(cost: Cost) -> str:
    """Return the table of layers, folded open where it was rolled up, then work, memory and trends."""
    whole = cost.select()
    selection, note = overview(cost)
    table = html_table(grid_of(selection, note=_note(note.partition(";")[0])))
    if note:
        calls = html_table(grid_of(whole, note=_note("")))
        table += folded(f"all {counted(len(whole.rows), 'rows')}", calls)
    blocks = largest_at_peak(cost)
    return block(
        html_title(heading(cost)),
        table,
        html_facts(work_facts(cost)),
        html_title("Memory"),
        html_facts(memory_facts(cost)),
        html_table(blocks) if blocks.rows else Markup(),
        *map(quiet, left_out(cost)),
        folded("where it goes", html_facts((finding.fault, finding.why) for finding in cost.findings)),
        Markup() if cost.timings is None else _timings(cost.timings),
        Markup() if cost.explanation is None else _explanation(cost.explanation),
        Markup() if cost.verification is None else _verification(cost.verification),
    )


@renders_html(Timings)
def timings_html(timings: Timings) -> str:
    """Return the slowest rows, what lies between them, and the step that nothing watched."""
    return block(_timings(timings))


def _timings(timings: Timings) -> Markup:
    return Markup().join(
        (
            html_title(timings_title(timings)),
            html_table(timings_grid(timings)),
            html_facts(between_facts(timings)),
            html_facts(step_facts(timings)),
        )
    )


@renders_html(Explanation)
def explanation_html(explanation: Explanation) -> str:
    """Return what would lower the peak, how to write it, and what doesn't help or can't be done."""
    return block(_explanation(explanation))


def _explanation(explanation: Explanation) -> Markup:
    grid, useful = remedies_grid(explanation), helping(explanation)
    return Markup().join(
        (
            html_title(explanation_title(explanation)),
            html_table(grid) if grid.rows else quiet(NOTHING_HELPS),
            html_facts((each.name, each.how + (f" ({each.note})" if each.note else "")) for each in useful),
            *map(quiet, without_effect(explanation)),
        )
    )


@renders_html(Verification)
def verification_html(found: Verification) -> str:
    """Return the measured and the forecast peaks, and where they were measured."""
    return block(_verification(found))


def _verification(found: Verification) -> Markup:
    return Markup().join(
        (
            html_title(verification_title(found)),
            html_table(verification_grid(found)),
            html_facts(verification_facts(found)),
        )
    )


@renders_html(Selection)
def selection_html(selection: Selection) -> str:
    """Return the selected rows with what they sum up to and the whole network's sums."""
    return block(
        html_title(heading(selection)),
        html_table(grid_of(selection, note=_note(described(selection)))),
        *map(quiet, left_out(selection)),
    )


@renders_html(SideBySide)
def side_by_side_html(found: SideBySide) -> str:
    """Return one column for each network, with ratios to the first."""
    return block(
        html_title(f"{counted(len(found.networks), 'networks')}, {found.plan}, on {found.device}"),
        *map(html_table, side_by_side_grids(found)),
        quiet(_note(f"× is relative to {found.networks[0].name}")),
        *map(quiet, left_out_beside(found)),
        html_facts(refusals(found)),
    )


@renders_html(Sweep)
def sweep_html(sweep: Sweep) -> str:
    """Return one line for each value."""
    return block(
        html_title(f"{sweep.network}: cost over {sweep.axis}, {sweep.plan}, on {sweep.device}"),
        html_table(sweep_grid(sweep)),
        quiet(_note("")),
        *map(quiet, left_out_along(sweep)),
        html_facts(refusals(sweep)),
    )


@renders_html(Savings)
def savings_html(found: Savings) -> str:
    """Return the bytes that autograd keeps of a lean network, in all and layer by layer."""
    return block(
        html_title(savings_title(found)),
        quiet(NOTHING) if saves_nothing(found) else Markup(),
        html_table(savings_grid(found)),
    )


def _note(text: str) -> str:
    return "; ".join(filter(None, (text, UNITS_NOTE)))
