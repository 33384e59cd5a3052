"""What is said about a cost reading beside its table: the work of a step, memory, what is left out.

Pairs of a name and a text, for the terminal and for notebooks alike.
"""

from convscope.core.units import format_bytes, format_count
from convscope.cost import Cost, Forecast, Selection
from convscope.report.wording.cost_grid import Grid
from convscope.report.wording.formats import counted, exact, shape
from convscope.report.wording.sentences import note

Fact = tuple[str, str]


def heading(found: Cost | Selection) -> str:
    """Return the title of a reading."""
    inputs = ", ".join(map(shape, found.input_shapes))
    return (
        f"{found.network}: cost of a batch of {found.batch_size} ({inputs}), {found.plan}, on {found.device}"
    )


def work_facts(cost: Cost) -> list[Fact]:
    """Return the FLOPs of a step, its elementwise operations, and what it keeps for backward."""
    totals = cost.totals
    for_inputs, for_weights = totals.backward_input_flops, totals.backward_weight_flops
    lines = [("forward", f"{format_count(totals.forward_flops)} FLOPs")]
    if totals.backward_flops:
        lines += [
            (
                "backward",
                f"{format_count(totals.backward_flops)} FLOPs ({format_count(for_inputs)} for the inputs, "
                f"{format_count(for_weights)} for the weights)",
            ),
            ("step", f"{format_count(totals.step_flops)} FLOPs"),
        ]
    if totals.recompute_flops:
        lines.append(
            ("recomputed", f"{format_count(totals.recompute_flops)} FLOPs more, forward work done again")
        )
    lines.append(("beside it", f"{format_count(totals.elementwise_ops)} elementwise operations in forward"))
    if totals.index_bytes:
        lines.append(
            (
                "of the saved bytes",
                f"{format_bytes(totals.index_bytes)} are integers: max-pool switches and class numbers",
            )
        )
    return lines


def memory_facts(cost: Cost) -> list[Fact]:
    """Return the course notes' estimate of memory, and beside it the forecast."""
    forecast = cost.forecast
    place = f"in {forecast.peak_phase} at {forecast.peak_op}" if forecast.peak_op else "before the step"
    lines = [
        ("rule of thumb", _rule(cost)),
        ("allocated peak", _peak(forecast.allocated_peak_bytes, forecast.allocated_range_bytes, place)),
        ("of which", ", ".join(f"{name} {format_bytes(size)}" for name, size in _parts(forecast))),
    ]
    if cost.forecast_without_lean is not None:
        lines.append(("without lean()", _without_lean(forecast, cost.forecast_without_lean)))
    if forecast.workspace_bytes is not None:
        lines.append(("cuDNN workspaces", f"{_range(forecast.workspace_bytes)} at the peak"))
    if forecast.reserved_peak_bytes is not None:
        lines.append(("reserved peak", _peak(forecast.reserved_peak_bytes, forecast.reserved_range_bytes)))
    if forecast.context_bytes is not None:
        context = forecast.context_range_bytes or (forecast.context_bytes, forecast.context_bytes)
        lines.append(("CUDA context", f"{_range(context)}, outside PyTorch's statistics{_gpu(forecast)}"))
    return [*lines, *(("not forecast", note(text)) for text in forecast.not_forecast)]


def _without_lean(lean: Forecast, plain: Forecast) -> str:
    share = lean.allocated_peak_bytes / plain.allocated_peak_bytes
    return f"{format_bytes(plain.allocated_peak_bytes)} in {plain.peak_phase}; lean takes {share:.2f}× that"


def _peak(without: int, bounds: tuple[int, int] | None, place: str = "") -> str:
    """A peak, and its bounds where cuDNN workspaces make some."""
    peak = f"{format_bytes(without)} {place}".strip()
    if bounds is None or bounds[1] <= without:
        return peak
    return f"{peak}; {_range(bounds)} with cuDNN workspaces"


def _parts(forecast: Forecast) -> list[tuple[str, int]]:
    """What the allocated peak consists of, largest first; what is 0 isn't there."""
    parts = {
        **forecast.live_by_role,
        "copies inside the operator": forecast.scratch_bytes,
        "cuBLAS workspaces": forecast.cublas_workspace_bytes,
        "remainders not split off": forecast.unsplit_bytes,
    }
    return sorted(((name, size) for name, size in parts.items() if size), key=lambda part: -part[1])


def _range(bounds: tuple[int, int]) -> str:
    low, high = map(format_bytes, bounds)
    return low if low == high else f"{low} to {high}"


def _gpu(forecast: Forecast) -> str:
    return f" (figures of {forecast.gpu})" if forecast.gpu else ""


def largest_at_peak(cost: Cost, count: int = 5) -> Grid:
    """Return the largest tensors alive at the peak."""
    rows = tuple(
        (format_bytes(each.nbytes), each.role, each.name or each.module, each.address or "before the step")
        for each in cost.forecast.live_at_peak[:count]
    )
    return Grid(("Largest at the peak#", "", "Of", "Made by"), rows)


def left_out(found: Cost | Selection) -> list[str]:
    """Return what isn't counted, which parameters nothing reads, and what was assumed."""
    lines = [
        f"not counted: {each.op}, {counted(each.calls, 'calls')} in {each.phase}, first at {each.address}"
        for each in found.uncounted
    ]
    if not lines:
        lines.append("nothing is left uncounted")
    lines += [f"unused: {each.name}, {exact(each.params)} parameters" for each in found.unused_parameters]
    return lines + [f"assumed: {text}" for text in found.assumptions]


def _rule(cost: Cost) -> str:
    rule = cost.rule_of_thumb
    both = rule.activation_bytes + rule.parameter_bytes
    return (
        f"{format_bytes(both)} = {format_bytes(rule.activation_bytes)} for activations "
        f"({_values(rule.values_per_activation)} for each of {format_count(rule.activations)}) + "
        f"{format_bytes(rule.parameter_bytes)} for parameters ({_values(rule.values_per_parameter)} each)"
    )


def _values(count: int) -> str:
    return counted(count, "values")
