"""``cost``: the table of layers, the totals, the estimates of memory and the trends of any network."""

from dataclasses import replace

from torch import nn

from convscope.cost.allocator.caching import AllocatorConfig
from convscope.cost.arithmetic.work import uncounted
from convscope.cost.memory.forecast import forecast
from convscope.cost.rows import table_of
from convscope.cost.rule_of_thumb import rule_of_thumb
from convscope.cost.table import Cost
from convscope.cost.trends import trends
from convscope.cost.views.rollup import modules_of
from convscope.norm import at_full_size, is_lean
from convscope.tape import Tape, TrainingPlan, record
from convscope.tape.device import Device
from convscope.tape.plan import describe
from convscope.tape.step import Step
from convscope.tape.substrate import Inputs

_DEFAULT_PLAN = TrainingPlan()


def cost(
    model: nn.Module,
    inputs: Inputs,
    plan: TrainingPlan | None = _DEFAULT_PLAN,
    device: Device = "cuda",
    step: Step | None = None,
    *,
    gpu: str = "sm90",
    allocator: AllocatorConfig | None = None,
    real: bool = False,
) -> Cost:
    """Return what every layer of a network costs for one batch and one training step.

    Nothing is allocated and the model comes back as it was: one step is recorded on simulated tensors. Of a
    lean network (:func:`convscope.norm.lean`) it is the lean step, with the other one's forecast beside it.

    Args:
        model: any eager PyTorch module.
        inputs: a tensor, a tuple or dict of tensors, or a shape such as ``(128, 3, 227, 227)``.
        plan: the training step; None for inference.
        device: whose operators and memory rules to follow: ``"cuda"`` or ``"cpu"``.
        step: a step of the user's own, in place of the default one.
        gpu: architecture or model of the GPU, such as ``"sm80"`` or ``"T4"``; unused for ``"cpu"``.
        allocator: settings of PyTorch's caching allocator; None: its defaults.
        real: record a step that runs for real on copies of the tensors, for networks that decide by data.

    Raises:
        ConvscopeError: the device or the GPU isn't known, or the network can't be recorded.

    Example:
        >>> found = cost(nn.Conv2d(3, 96, 11, stride=4), (128, 3, 227, 227))
        >>> found.totals.params, found.totals.forward_flops, found.rows[0].output_shape
        (34944, 26986291200, (128, 96, 55, 55))
    """
    tape = record(model, inputs, plan, step, device=device, real=real)
    found = cost_of(tape, plan, network=type(model).__name__, gpu=gpu, allocator=allocator)
    if not tape.training or not is_lean(model):
        return found
    with at_full_size(model):
        tape = record(model, inputs, plan, step, device=device, real=real)
    return replace(found, forecast_without_lean=forecast(tape, gpu=gpu, allocator=allocator))


def cost_of(
    tape: Tape,
    plan: TrainingPlan | None = None,
    *,
    network: str = "",
    gpu: str = "sm90",
    allocator: AllocatorConfig | None = None,
) -> Cost:
    """Return the cost of a step that has been recorded.

    Args:
        tape: the recording.
        plan: the plan that it was recorded with; None for inference.
        network: the network's name.
        gpu: see :func:`cost`.
        allocator: see :func:`cost`.
    """
    table = table_of(tape)
    shapes = tuple(tape.values[value].shape for value in tape.inputs)
    estimate = rule_of_thumb(tape, table.rows, plan)
    return Cost(
        network=network,
        input_shapes=shapes,
        batch_size=shapes[0][0] if shapes and shapes[0] else 1,
        plan=describe(plan),
        device=tape.device,
        totals=table.totals,
        rows=table.rows,
        unused_parameters=table.unused_parameters,
        uncounted=uncounted(tape),
        rule_of_thumb=estimate,
        forecast=forecast(tape, gpu=gpu, allocator=allocator),
        findings=trends(table.rows, table.totals, estimate),
        assumptions=tape.assumptions,
        modules=modules_of(tape),
    )
