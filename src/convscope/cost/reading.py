"""``cost``: the table of layers, the totals, the estimates of memory and the trends of any network."""

from dataclasses import asdict

from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.cost.arithmetic.work import uncounted
from convscope.cost.memory.forecast import forecast
from convscope.cost.rows import table_of
from convscope.cost.rule_of_thumb import rule_of_thumb
from convscope.cost.table import Cost
from convscope.cost.trends import trends
from convscope.tape import Tape, TrainingPlan, record
from convscope.tape.step import Step
from convscope.tape.substrate import Inputs

_DEFAULT_PLAN = TrainingPlan()
_DEVICES = ("cuda",)


def cost(
    model: nn.Module,
    inputs: Inputs,
    plan: TrainingPlan | None = _DEFAULT_PLAN,
    device: str = "cuda",
    step: Step | None = None,
) -> Cost:
    """Return what every layer of a network costs for one batch and one training step.

    Nothing is allocated and the model comes back as it was: one step is recorded on simulated tensors.

    Args:
        model: any eager PyTorch module.
        inputs: a tensor, a tuple or dict of tensors, or a shape such as ``(128, 3, 227, 227)``.
        plan: the training step; None for inference.
        device: whose memory rules to follow: ``"cuda"``.
        step: a step of the user's own, in place of the default one.

    Raises:
        ConvscopeError: the device isn't known, or the network can't be recorded.

    Example:
        >>> found = cost(nn.Conv2d(3, 96, 11, stride=4), (128, 3, 227, 227))
        >>> found.totals.params, found.totals.forward_flops, found.rows[0].output_shape
        (34944, 26986291200, (128, 96, 55, 55))
    """
    if device not in _DEVICES:
        raise ConvscopeError(
            f"device {device!r}", "'cuda', the only one whose memory rules are known", "use it"
        )
    tape = record(model, inputs, plan, step)
    return cost_of(tape, plan, network=type(model).__name__, device=device)


def cost_of(tape: Tape, plan: TrainingPlan | None = None, *, network: str = "", device: str = "cuda") -> Cost:
    """Return the cost of a step that has been recorded.

    Args:
        tape: the recording.
        plan: the plan that it was recorded with; None for inference.
        network: the network's name.
        device: see :func:`cost`.
    """
    table = table_of(tape)
    shapes = tuple(tape.values[value].shape for value in tape.inputs)
    estimate = rule_of_thumb(tape, table.rows, plan)
    return Cost(
        network=network,
        input_shapes=shapes,
        batch_size=shapes[0][0] if shapes and shapes[0] else 1,
        plan=describe(plan),
        device=device,
        totals=table.totals,
        rows=table.rows,
        unused_parameters=table.unused_parameters,
        uncounted=uncounted(tape),
        rule_of_thumb=estimate,
        forecast=forecast(tape),
        findings=trends(table.rows, table.totals, estimate),
        assumptions=tape.assumptions,
    )


def describe(plan: TrainingPlan | None) -> str:
    """Return a plan in words: what differs from the default is named.

    Example:
        >>> describe(TrainingPlan("adamw", clip_grad_norm=1.0))
        'adamw, fp32, clip_grad_norm=1.0'
    """
    if plan is None:
        return "inference"
    changed = [
        f"{name}={getattr(value, '__name__', value)}"
        for name, value in asdict(plan).items()
        if name not in ("optimizer", "precision") and value != getattr(_DEFAULT_PLAN, name)
    ]
    return ", ".join([plan.optimizer, plan.precision, *changed])
