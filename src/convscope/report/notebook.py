"""How cost readings look in a notebook: real tables, which a reader can copy, search and sort by eye.

The texts are those of the terminal; only their mark-up is made here. Importing this registers one rendering
for each result that has more than the terminal's text to show.
"""

from markupsafe import Markup

from convscope.core.result import renders_html
from convscope.cost import Cost, Selection, SideBySide, Sweep
from convscope.report.cost_compared import refusals, side_by_side_grids, sweep_grid
from convscope.report.cost_facts import heading, largest_at_peak, left_out, memory_facts, work_facts
from convscope.report.cost_grid import described, grid_of, overview
from convscope.report.formats import counted
from convscope.report.html import block, folded, html_facts, html_table, html_title, quiet
from convscope.report.terminal.tables import UNITS_NOTE


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
        html_title(heading(cost.network, cost.batch_size, cost.input_shapes, cost.plan)),
        table,
        html_facts(work_facts(cost)),
        html_title("Memory"),
        html_facts(memory_facts(cost)),
        html_table(blocks) if blocks.rows else Markup(),
        *map(quiet, left_out(cost)),
        folded("where it goes", html_facts((finding.fault, finding.why) for finding in cost.findings)),
    )


@renders_html(Selection)
def selection_html(selection: Selection) -> str:
    """Return the selected rows with what they sum up to and the whole network's sums."""
    subject = (selection.network, selection.batch_size, selection.input_shapes, selection.plan)
    return block(
        html_title(heading(*subject)), html_table(grid_of(selection, note=_note(described(selection))))
    )


@renders_html(SideBySide)
def side_by_side_html(found: SideBySide) -> str:
    """Return one column for each network, with ratios to the first."""
    return block(
        html_title(f"{counted(len(found.networks), 'networks')}, {found.plan}"),
        *map(html_table, side_by_side_grids(found)),
        quiet(_note(f"× is relative to {found.networks[0].name}")),
        html_facts(refusals(found)),
    )


@renders_html(Sweep)
def sweep_html(sweep: Sweep) -> str:
    """Return one line for each value."""
    return block(
        html_title(f"{sweep.network}: cost over {sweep.axis}, {sweep.plan}"),
        html_table(sweep_grid(sweep)),
        quiet(_note("")),
        html_facts(refusals(sweep)),
    )


def _note(text: str) -> str:
    return "; ".join(filter(None, (text, UNITS_NOTE)))
