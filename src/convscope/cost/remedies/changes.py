"""What could be changed about a training step to make it need less memory: the plan and the batch.

A :class:`Change` says what to do, how to write it, whether the step still computes the same, and how to
simulate it. Changes of the network itself are in ``network_changes`` and ``stages``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.cost.batch.scaling import batch_of, with_batch
from convscope.tape import OperatorCall, Tape, TrainingPlan
from convscope.tape.step import Step
from convscope.tape.substrate import Inputs

_MANY = 4


@dataclass(frozen=True)
class Situation:
    """The step that should need less memory.

    Attributes:
        model, inputs, plan, step: what was recorded.
        tape: the recording.
        peak_call: index of the operator call at the peak of memory.
        gpu: whose constants the forecast uses.
    """

    model: nn.Module
    inputs: Inputs
    plan: TrainingPlan | None
    step: Step | None
    tape: Tape
    peak_call: int
    gpu: str = "sm90"


def _nothing(_: nn.Module) -> None:
    return None


@dataclass(frozen=True)
class Change:
    """One thing to do otherwise.

    Attributes:
        name: stable identifier, such as ``"inplace-relu"`` or ``"checkpoint:layer1"``.
        change: what to do, as a sentence.
        how: the line of code to write.
        keeps_result: whether the step computes the same weights, up to rounding and random numbers.
        note: what else it changes; empty if nothing.
        apply: changes the network; only shallow structure, which the caller restores.
        plan: the plan in place of the step's own, or None.
        inputs: the inputs in place of the step's own, or None.
        impossible: why it can't be done; the rest is then for reading only.
    """

    name: str
    change: str
    how: str
    keeps_result: bool
    note: str = ""
    apply: Callable[[nn.Module], None] = _nothing
    plan: TrainingPlan | None = None
    inputs: Inputs | None = None
    impossible: str = ""


Proposal = Callable[[Situation], Iterator[Change]]
"""Looks at a situation and yields the changes of one kind that apply to it."""


def half_the_batch(now: Situation) -> Iterator[Change]:
    """Half the batch, and the same batch in two halves whose gradients are summed."""
    batch = batch_of(now.inputs)
    half = batch // 2
    if half < 1:
        return
    halved = with_batch(now.inputs, half)
    said = f"a batch of {half} in place of {batch}"
    yield Change("half-batch", said, f"DataLoader(..., batch_size={half})", False, inputs=halved)
    if now.plan is None or now.step is not None or 2 * half != batch:
        return
    statistics = "batch norms see half a batch at a time" if batch_norms_at_work(now.tape) else ""
    yield Change(
        "accumulate-gradients",
        f"two passes of {half} whose gradients are summed, then one optimizer step",
        "(loss / 2).backward() for each half; optimizer.step(); optimizer.zero_grad() after both",
        not statistics,
        statistics,
        plan=replace(now.plan, zero_grad_set_to_none=False),
        inputs=halved,
    )


def lower_precision(now: Situation) -> Iterator[Change]:
    """Automatic mixed precision in the two halves' formats."""
    if now.plan is None or now.step is not None or now.plan.precision != "fp32":
        return
    for precision, dtype in (("amp-fp16", "float16"), ("amp-bf16", "bfloat16")):
        scaler = ", and torch.amp.GradScaler around the loss" if dtype == "float16" else ""
        change = Change(
            precision,
            f"automatic mixed precision in {dtype}",
            f'with torch.autocast("cuda", torch.{dtype}): loss = criterion(model(x), y){scaler}',
            False,
            "operators on autocast's list round to 16 bits",
        )
        try:
            yield replace(change, plan=replace(now.plan, precision=precision))  # type: ignore[arg-type]
        except ConvscopeError:
            yield replace(change, impossible="automatic mixed precision isn't simulated yet")


def other_kernels(now: Situation) -> Iterator[Change]:
    """The optimizer's loop over parameters, and its fused kernels, in place of kernels over lists."""
    if now.plan is None or now.step is not None:
        return
    if now.plan.foreach is True:
        yield Change(
            "foreach-off",
            "the optimizer goes through the parameters one by one",
            f"{optimizer_name(now.plan)}(..., foreach=False)",
            True,
            "the optimizer's step takes longer: kernels per parameter",
            plan=replace(now.plan, foreach=False),
        )
    if now.plan.foreach != "fused" and now.plan.optimizer != "rmsprop":
        yield Change(
            "fused",
            "the optimizer's fused kernels, which keep no intermediate tensors",
            f"{optimizer_name(now.plan)}(..., fused=True)",
            True,
            plan=replace(now.plan, foreach="fused"),
        )


def freed_gradients(now: Situation) -> Iterator[Change]:
    """Gradients that are dropped between steps."""
    if now.plan is not None and now.step is None and not now.plan.zero_grad_set_to_none:
        yield Change(
            "set-to-none",
            "gradients are freed before the forward pass in place of being filled with zeros",
            "optimizer.zero_grad(set_to_none=True)",
            True,
            plan=replace(now.plan, zero_grad_set_to_none=True),
        )


def other_layout(now: Situation) -> Iterator[Change]:
    """Images and kernels with their channels innermost."""
    if now.plan is not None and now.step is None and not now.plan.channels_last:
        yield Change(
            "channels-last",
            "four-dimensional tensors keep their channels innermost",
            "model.to(memory_format=torch.channels_last); x = x.to(memory_format=torch.channels_last)",
            True,
            plan=replace(now.plan, channels_last=True),
        )


def smaller_states(now: Situation) -> Iterator[Change]:
    """Optimizers that keep fewer values per parameter."""
    if now.plan is None or now.step is not None:
        return
    states = now.plan.state_values_per_parameter
    for optimizer, values, written in (
        ("sgd-momentum", 1, "torch.optim.SGD(parameters, lr, momentum=0.9)"),
        ("sgd", 0, "torch.optim.SGD(parameters, lr)"),
    ):
        if values < states:
            yield Change(
                optimizer,
                f"{'SGD with momentum' if values else 'plain SGD'} ({values} values kept per parameter, "
                f"not {states})",
                written,
                False,
                "another optimizer trains otherwise and wants another learning rate",
                plan=replace(now.plan, optimizer=optimizer),  # type: ignore[arg-type]
            )


def optimizer_name(plan: TrainingPlan) -> str:
    """Return PyTorch's name of a plan's optimizer.

    Example:
        >>> optimizer_name(TrainingPlan("sgd-momentum"))
        'torch.optim.SGD'
    """
    names = {"adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop"}
    return f"torch.optim.{names.get(plan.optimizer, 'SGD')}"


def batch_norms_at_work(tape: Tape, modules: set[int] | None = None) -> list[OperatorCall]:
    """Return the forward calls of batch norms that use the batch's statistics.

    Args:
        tape: the recording.
        modules: indices of the module calls to look in; None for all.
    """
    return [
        call
        for call in tape.in_phase("forward")
        if call.op == "batch_norm"
        and (call.arguments.get("training") or call.arguments.get("train"))
        and (modules is None or call.module in modules)
    ]


def enclosing(tape: Tape, module: int | None) -> list[int]:
    """Return the indices of the module calls around (and with) one, the network's own first."""
    chain: list[int] = []
    while module is not None:
        chain.append(module)
        module = tape.modules[module].parent
    return chain[::-1]


def listed(paths: list[str]) -> str:
    """Return the first few of some paths, and how many more there are.

    Example:
        >>> listed(["a", "b", "c", "d", "e", "f"])
        'a, b, c, d and 2 more'
    """
    shown = ", ".join(paths[:_MANY])
    return shown + (f" and {len(paths) - _MANY} more" if len(paths) > _MANY else "")
