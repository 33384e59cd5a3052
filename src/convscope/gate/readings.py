"""What each limit is held against: the readings of other rooms, as one number with its parts."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeGuard

from torch import nn

from convscope.checkup import Checkup, CheckupPlan, Unchecked, checkup
from convscope.core.errors import ConvscopeError
from convscope.core.modes import in_evaluation_mode
from convscope.core.units import counted, format_bytes, format_count
from convscope.cost import Cost, cost_of, describe
from convscope.cost.batch.least import least_memory
from convscope.fold import Ledger, fold
from convscope.gate.limits import SEVERITIES, UNMEASURED_GAP, Limits
from convscope.tape import Tape, TrainingPlan, record
from convscope.tape.substrate import Inputs

_NAMED = 5
"""Parts of a sum that are named."""


class Measured(NamedTuple):
    """A number that a limit is held against.

    Attributes:
        value: in ``unit``.
        unit: of it.
        method: what was measured, in a sentence.
        details: what it consists of, largest or worst first.
        unchecked: what the check-up could not check.
        assumptions: what the recording had to assume.
    """

    value: int
    unit: str
    method: str
    details: tuple[str, ...]
    unchecked: tuple[Unchecked, ...] = ()
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """A network, its limits, and how it is read; what several limits need is read once.

    Attributes:
        model, inputs, plan, device, gpu, data, loss, checkup_plan: see :func:`convscope.gate.gate.gate`.
        limits: of the network.
    """

    model: nn.Module
    inputs: Inputs
    limits: Limits
    plan: TrainingPlan | None
    device: Literal["cuda", "cpu"]
    gpu: str
    data: Any
    loss: Any
    checkup_plan: CheckupPlan | None

    @cached_property
    def tape(self) -> Tape:
        """The recorded step."""
        return record(self.model, self.inputs, self.plan, device=self.device)

    @cached_property
    def cost(self) -> Cost:
        """Its cost."""
        return cost_of(self.tape, self.plan, gpu=self.gpu)


def _memory(subject: Subject) -> Measured:
    needed = least_memory(subject.tape, gpu=subject.gpu)
    forecast = subject.cost.forecast
    where = f"{forecast.device} ({forecast.gpu})" if forecast.gpu else forecast.device
    parts = [f"{format_bytes(needed.capacity_bytes)} for tensors, workspaces and what lies between them"]
    if needed.context_bytes:
        parts.append(f"{format_bytes(needed.context_bytes)} for the CUDA context")
        parts.append(f"{format_bytes(needed.margin_bytes)} left free")
    roles = sorted(forecast.live_by_role.items(), key=lambda role: -role[1])
    peak = f"peak in {forecast.peak_phase} at {forecast.peak_op}"
    alive = [f"{role}: {format_bytes(size)} at the peak" for role, size in roles if size]
    return Measured(
        needed.total_bytes,
        "B",
        f"the least memory into which a step fits for sure, {describe(subject.plan)}, on {where}",
        (*parts, peak, *alive[:_NAMED]),
        assumptions=subject.cost.assumptions,
    )


def _params(subject: Subject) -> Measured:
    return _summed(subject, "params", "elements", "of all parameters, tied ones once")


def _macs(subject: Subject) -> Measured:
    return _summed(subject, "macs", "MACs", "multiply–accumulates of the forward pass of the whole batch")


def _flops(subject: Subject) -> Measured:
    return _summed(subject, "forward_flops", "FLOPs", "forward pass of the whole batch, two for each MAC")


def _summed(subject: Subject, column: str, unit: str, method: str) -> Measured:
    cost = subject.cost
    largest = sorted(cost.rows, key=lambda row: -(getattr(row, column) or 0))[:_NAMED]
    rows = [f"{row.address}: {format_count(getattr(row, column))}" for row in largest if getattr(row, column)]
    if column != "params" and cost.uncounted:
        method += f"; not counted: {', '.join(sorted({each.op for each in cost.uncounted}))}"
    assumed = () if column == "params" else cost.assumptions
    return Measured(getattr(cost.totals, column), unit, method, tuple(rows), assumptions=assumed)


def _fault(subject: Subject) -> Measured:
    limits = subject.limits
    assert limits.fault is not None  # it is read only if it is given
    bad = SEVERITIES[: SEVERITIES.index(limits.fault) + 1]
    data = subject.data
    if data is None and _is_shape(subject.inputs):
        data = subject.inputs
    found = checkup(subject.model, data, loss=subject.loss, plan=subject.checkup_plan)
    counts = [
        finding
        for finding in found.findings
        if finding.severity in bad and finding.fault not in limits.allowed
    ]
    if not counts and UNMEASURED_GAP not in limits.allowed:
        _require_gap(found)
    lines = [f"{each.severity} {each.fault} at {each.address}: {each.why}; {each.remedy}" for each in counts]
    depth = "on the network alone" if subject.data is None else "on the network and its data"
    allowed = ", ".join(name for name in limits.allowed if name != UNMEASURED_GAP)
    but = f", but for {allowed}" if allowed else ""
    method = f"of severity {' or '.join(bad)} by the check-up {depth}{but}"
    return Measured(len(counts), "findings", method, tuple(lines), found.unchecked)


def _require_gap(found: Checkup) -> None:
    """Refuse a verdict on data whose gap wasn't measured: what it would say of faults isn't known.

    Raises:
        ConvscopeError: data was run, some batch norm trains, and there is no gap.
    """
    if not found.num_batches or found.gap is not None or all(layer.frozen for layer in found.layers):
        return
    reasons = [each.reason for each in found.unchecked if "gap" in each.what]
    raise ConvscopeError(
        "a limit on faults with data, of which the gap between the losses with running and with batch "
        f"statistics couldn't be measured ({reasons[0] if reasons else 'no loss'})",
        "labels, and an output that cross-entropy takes or a loss",
        f"give cs.gate(..., loss=...), or accept the verdict without the gap by allowing {UNMEASURED_GAP} "
        f"(--allow {UNMEASURED_GAP})",
    )


def _unfolded(subject: Subject) -> Measured:
    with in_evaluation_mode(subject.model):
        ledger = _ledger(subject.model, subject.inputs)
    left = [entry for entry in ledger.entries if entry.verdict in ("kept", "partial")]
    lines = [f"{entry.address} is {entry.verdict}: {entry.reason}" for entry in left]
    return Measured(
        len(left), "batch norms", f"left of {counted(len(ledger), 'batch norm')} by folding", tuple(lines)
    )


def _ledger(model: nn.Module, inputs: Inputs) -> Ledger:
    """Fold on two inputs, where only a shape is given: proofs cost as much as the batch is large."""
    if _is_shape(inputs):
        with suppress(ConvscopeError):  # a network for one size of batch
            return fold(model, (2, *inputs[1:])).ledger
    return fold(model, inputs).ledger


def _is_shape(inputs: Inputs) -> TypeGuard[tuple[int, ...]]:
    return isinstance(inputs, tuple) and all(isinstance(size, int) for size in inputs)


READINGS: Mapping[str, Callable[[Subject], Measured]] = MappingProxyType(
    {
        "memory": _memory,
        "params": _params,
        "macs": _macs,
        "flops": _flops,
        "fault": _fault,
        "unfolded": _unfolded,
    }
)
"""By the limit's name, in the order in which they are checked."""
