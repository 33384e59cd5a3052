"""The cost reading in the terminal."""

from rich.console import Group, RenderableType
from rich.text import Text

from convscope.core.result import renders
from convscope.core.units import format_bytes, format_count
from convscope.cost import Cost, Row
from convscope.report.formats import counted, shape, window
from convscope.report.terminal.tables import UNITS_NOTE, facts, findings, label, sections, table, title

_COLUMNS = ("Layer", "", "Output", "Sees px#", "Params#", "Activations#", "MACs#", "Saved for backward#")


@renders(Cost)
def render_cost(cost: Cost) -> RenderableType:
    """Return the table of layers, totals, the rule of thumb, memory, what isn't counted, and the trends."""
    totals = cost.totals
    footer = ("Total", "", "", "", format_count(totals.params), format_count(totals.activations),
              format_count(totals.macs), format_bytes(totals.saved_bytes))  # fmt: skip
    inputs = ", ".join(shape(size) for size in cost.input_shapes)
    return sections(
        title(f"{cost.network}: cost of a batch of {cost.batch_size} ({inputs}), {cost.plan}"),
        table(_COLUMNS, map(_row, cost.rows), footer=footer, note=UNITS_NOTE),
        _step(cost),
        _memory(cost),
        _left_out(cost),
        findings(cost.findings),
    )


def _row(row: Row) -> tuple[object, ...]:
    sees = window(row.receptive_field.size) if row.receptive_field else ""
    numbers = (format_count(row.params), format_count(row.activations), format_count(row.macs))
    return (
        row.address,
        label(row.op, "dim"),
        shape(row.output_shape),
        sees,
        *numbers,
        format_bytes(row.saved_bytes),
    )


def _step(cost: Cost) -> RenderableType:
    totals, rule = cost.totals, cost.rule_of_thumb
    backward = (
        f"{format_count(totals.backward_flops)} FLOPs ({format_count(totals.backward_input_flops)} for "
        f"the inputs, {format_count(totals.backward_weight_flops)} for the weights)"
    )
    rule_text = (
        f"{format_bytes(rule.activation_bytes)} for activations ({rule.values_per_activation} values each of "
        f"{format_count(rule.activations)}) + {format_bytes(rule.parameter_bytes)} for parameters "
        f"({rule.values_per_parameter} values each); compare the peak below"
    )
    return facts(
        (
            ("forward", f"{format_count(totals.forward_flops)} FLOPs"),
            ("backward", backward),
            ("step", f"{format_count(totals.step_flops)} FLOPs"),
            ("beside it", f"{format_count(totals.elementwise_ops)} elementwise operations"),
            (
                "of the saved bytes",
                f"{format_bytes(totals.index_bytes)} are integers: max-pool switches and class numbers",
            ),
            ("rule of thumb", rule_text),
        )
    )


def _memory(cost: Cost) -> RenderableType:
    forecast = cost.forecast
    roles = ", ".join(f"{role} {format_bytes(size)}" for role, size in forecast.live_by_role.items() if size)
    lines = [
        (
            "peak of tensors",
            f"{format_bytes(forecast.allocated_peak_bytes)}, in {forecast.peak_phase} at {forecast.peak_op}",
        ),
        ("alive there", roles),
    ]
    return facts((*lines, *(("not forecast", text) for text in forecast.not_forecast)))


def _left_out(cost: Cost) -> RenderableType | None:
    lines = [
        f"not counted: {each.op}, {counted(each.calls, 'calls')} in {each.phase}, first at {each.address}"
        for each in cost.uncounted
    ]
    lines += [
        f"unused: {each.name}, {format_count(each.params)} parameters" for each in cost.unused_parameters
    ]
    lines += [f"assumed: {text}" for text in cost.assumptions]
    if not cost.uncounted:
        lines.insert(0, "nothing is left uncounted")
    return Group(*(label(line, "dim") for line in lines)) if lines else Text("")
