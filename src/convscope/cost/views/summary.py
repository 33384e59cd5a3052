"""A whole cost reading in a few numbers, to put networks and settings side by side."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from convscope.cost.shares import linear_share, stem_share
from convscope.cost.table import Cost, Uncounted


@dataclass(frozen=True)
class Summary:
    """What a network costs, for one batch and one step.

    Attributes:
        input_shapes, batch_size: of what it was given.
        params: elements of all parameters.
        activations: elements of the rows' outputs, whole batch.
        macs: of the forward pass, whole batch.
        forward_flops, backward_flops, step_flops: 2 per MAC; 0 for backward in inference.
        elementwise_ops: forward work that isn't products.
        saved_bytes: kept for the backward pass.
        rule_of_thumb_bytes: the course notes' estimate of memory.
        allocated_peak_bytes: see :class:`convscope.cost.memory.values.Forecast`.
        allocated_high_bytes: the same with as much workspace as cuDNN may take.
        reserved_peak_bytes, reserved_high_bytes: likewise; None where they aren't forecast.
        peak_phase, peak_op: where the peak is.
        stem_share: the first convolution's share of the outputs that course notes count; None without one.
        linear_share: the fully connected layers' share of the parameters; None without such layers.
        device: whose memory rules the forecast follows.
        uncounted: operators without a rule, whose work is in none of the numbers.
        assumptions: what the simulation had to assume.
    """

    input_shapes: tuple[tuple[int, ...], ...]
    batch_size: int
    params: int
    activations: int
    macs: int
    forward_flops: int
    backward_flops: int
    step_flops: int
    elementwise_ops: int
    saved_bytes: int
    rule_of_thumb_bytes: int
    allocated_peak_bytes: int
    allocated_high_bytes: int
    reserved_peak_bytes: int | None
    reserved_high_bytes: int | None
    peak_phase: str
    peak_op: str
    stem_share: float | None
    linear_share: float | None
    device: str
    uncounted: tuple[Uncounted, ...]
    assumptions: tuple[str, ...]

    def ratios(self, to: "Summary") -> Mapping[str, float]:
        """Return each number divided by another network's; those missing or 0 there are absent."""
        pairs = {name: (getattr(self, name), getattr(to, name)) for name in _RATIOS}
        return {name: mine / theirs for name, (mine, theirs) in pairs.items() if mine is not None and theirs}


_RATIOS = (
    "params", "activations", "macs", "forward_flops", "backward_flops", "step_flops", "elementwise_ops",
    "saved_bytes", "rule_of_thumb_bytes", "allocated_peak_bytes",
    "allocated_high_bytes", "reserved_peak_bytes", "reserved_high_bytes",
)  # fmt: skip

SUMMARY_FIELDS = tuple(field.name for field in fields(Summary))
"""The names of a summary's fields, in order."""


@dataclass(frozen=True)
class Refused:
    """A network or a setting that couldn't be read.

    Attributes:
        name: which one.
        reason: why, in one line.
    """

    name: str
    reason: str


def summary_of(cost: Cost) -> Summary:
    """Return a reading in a few numbers."""
    totals, forecast, rule = cost.totals, cost.forecast, cost.rule_of_thumb
    return Summary(
        input_shapes=cost.input_shapes,
        batch_size=cost.batch_size,
        params=totals.params,
        activations=totals.activations,
        macs=totals.macs,
        forward_flops=totals.forward_flops,
        backward_flops=totals.backward_flops,
        step_flops=totals.step_flops,
        elementwise_ops=totals.elementwise_ops,
        saved_bytes=totals.saved_bytes,
        rule_of_thumb_bytes=rule.activation_bytes + rule.parameter_bytes,
        allocated_peak_bytes=forecast.allocated_peak_bytes,
        allocated_high_bytes=max(forecast.allocated_peak_bytes, forecast.allocated_range_bytes[1]),
        reserved_peak_bytes=forecast.reserved_peak_bytes,
        reserved_high_bytes=forecast.reserved_range_bytes[1] if forecast.reserved_range_bytes else None,
        peak_phase=forecast.peak_phase,
        peak_op=forecast.peak_op,
        stem_share=stem_share(cost.rows),
        linear_share=linear_share(cost.rows, totals.params),
        device=cost.device,
        uncounted=cost.uncounted,
        assumptions=cost.assumptions,
    )


def summary_cells(summary: Summary) -> list[object]:
    """Return a summary's values for a CSV; several of one kind are separated by semicolons.

    Operators that aren't counted are written as ``PHASE:OPERATOR``.
    """
    several = {
        "input_shapes": ("x".join(map(str, shape)) for shape in summary.input_shapes),
        "uncounted": (f"{each.phase}:{each.op}" for each in summary.uncounted),
        "assumptions": summary.assumptions,
    }
    return [";".join(several[name]) if name in several else getattr(summary, name) for name in SUMMARY_FIELDS]
