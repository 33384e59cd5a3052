"""What would lower the peak of memory? Every remedy is simulated again and has its own number.

A remedy is applied to the network's structure, the step is recorded on simulated tensors, and the structure
is put back; the network's own tensors are never touched. Remedies that the network doesn't allow say why.

Limits: remedies are tried one by one: their savings don't add up. Whether training still goes well isn't
forecast, and neither is its time, but for the additional FLOPs.
"""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.core.preserved import preserved_structure
from convscope.cost.batch.scaling import batch_of
from convscope.cost.memory.forecast import forecast
from convscope.cost.memory.values import Forecast
from convscope.cost.remedies.changes import (
    Change,
    Proposal,
    Situation,
    freed_gradients,
    half_the_batch,
    lower_precision,
    other_kernels,
    other_layout,
    smaller_states,
)
from convscope.cost.remedies.network_changes import (
    frozen_stem,
    in_place_activations,
    lean_batch_norm,
    other_norms,
)
from convscope.cost.remedies.stages import checkpointed_stages
from convscope.cost.remedies.values import Explanation, Remedy
from convscope.cost.rows import table_of
from convscope.tape import Tape, TrainingPlan, record
from convscope.tape.step import Step
from convscope.tape.substrate import Inputs

_DEFAULT_PLAN = TrainingPlan()

PROPOSALS: tuple[Proposal, ...] = (
    in_place_activations,
    lean_batch_norm,
    freed_gradients,
    other_kernels,
    checkpointed_stages,
    lower_precision,
    other_layout,
    half_the_batch,
    smaller_states,
    frozen_stem,
    other_norms,
)
"""What is tried, in the order in which remedies of equal effect are listed."""


def explain(
    model: nn.Module,
    inputs: Inputs,
    plan: TrainingPlan | None = _DEFAULT_PLAN,
    *,
    device: Literal["cuda", "cpu"] = "cuda",
    gpu: str = "sm90",
    step: Step | None = None,
) -> Explanation:
    """Return the peak of a step and what would lower it; the model comes back as it was.

    Args:
        model: any eager PyTorch module.
        inputs: a tensor, a tuple or dict of tensors, or a shape such as ``(128, 3, 227, 227)``.
        plan: the training step; None for inference.
        device: whose memory rules to follow.
        gpu: which GPU's constants to use.
        step: a step of the user's own, in place of the default one; its optimizer isn't changed.

    Raises:
        ConvscopeError: the step itself can't be recorded.

    Example:
        >>> net = nn.Sequential(nn.Linear(64, 4096), nn.ReLU(), nn.Linear(4096, 10))
        >>> found = explain(net, (1024, 64), TrainingPlan("adam"))
        >>> found.remedies[0].saved_bytes > 2**23
        True
    """
    tape = record(model, inputs, plan, step, device=device)
    now = forecast(tape, gpu=gpu)
    peak = max(now.timeline, key=lambda point: point.allocated_bytes).call if now.timeline else 0
    situation = Situation(model, inputs, plan, step, tape, peak, gpu)
    changes = [change for proposal in PROPOSALS for change in proposal(situation)]
    base = _Measured(now, _flops(tape) / batch_of(inputs))
    tried = [_try(situation, change, base) for change in changes]
    return Explanation(
        type(model).__name__,
        batch_of(inputs),
        now.allocated_peak_bytes,
        now.reserved_peak_bytes,
        now.peak_phase,
        now.peak_op,
        tuple(sorted(tried, key=_rank)),
    )


@dataclass(frozen=True)
class _Measured:
    """A simulated step: its memory, and its FLOPs per item of the batch."""

    forecast: Forecast
    flops: float


def _try(now: Situation, change: Change, base: _Measured) -> Remedy:
    if change.impossible:
        return _remedy(change, change.impossible)
    plan = now.plan if change.plan is None else change.plan
    inputs = now.inputs if change.inputs is None else change.inputs
    try:
        with preserved_structure(now.model):
            change.apply(now.model)
            tape = record(now.model, inputs, plan, now.step, device=now.tape.device)
    except ConvscopeError as error:
        return _remedy(change, error.given)
    return _compared(change, base, _Measured(forecast(tape, gpu=now.gpu), _flops(tape) / batch_of(inputs)))


def _compared(change: Change, before: _Measured, after: _Measured) -> Remedy:
    old, new = before.forecast, after.forecast
    saved = old.allocated_peak_bytes - new.allocated_peak_bytes
    reserved = None
    if old.reserved_peak_bytes is not None and new.reserved_peak_bytes is not None:
        reserved = old.reserved_peak_bytes - new.reserved_peak_bytes
    return _remedy(
        change,
        "",
        allocated_peak_bytes=new.allocated_peak_bytes,
        reserved_peak_bytes=new.reserved_peak_bytes,
        saved_bytes=saved,
        saved_reserved_bytes=reserved,
        saved_share=saved / old.allocated_peak_bytes if old.allocated_peak_bytes else 0.0,
        extra_flops_share=after.flops / before.flops - 1 if before.flops else 0.0,
    )


def _remedy(
    change: Change,
    impossible: str,
    *,
    allocated_peak_bytes: int | None = None,
    reserved_peak_bytes: int | None = None,
    saved_bytes: int | None = None,
    saved_reserved_bytes: int | None = None,
    saved_share: float | None = None,
    extra_flops_share: float | None = None,
) -> Remedy:
    return Remedy(
        change.name, change.change, change.how, change.keeps_result, change.note, allocated_peak_bytes,
        reserved_peak_bytes, saved_bytes, saved_reserved_bytes, saved_share, extra_flops_share, impossible,
    )  # fmt: skip


def _flops(tape: Tape) -> int:
    """All that the hardware does in one step: recomputation included."""
    totals = table_of(tape).totals
    return totals.step_flops + totals.recompute_flops


def _rank(remedy: Remedy) -> tuple[bool, int]:
    return remedy.saved_bytes is None, -(remedy.saved_bytes or 0)
