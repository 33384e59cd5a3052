"""A real step of a user's network, on copies of its tensors, so that the network itself isn't touched.

The same step that the tape records: gradients of the step before are freed or zeroed, forward, loss,
backward, clipping, optimizer; outputs and loss live until its end. Timing and the measurement of memory
run it.

The learning rate is 0: the optimizer does all its work, and parameters stay what they were, so that random
inputs can't make a network diverge while it is measured.

Limits: hooks that the user registered on tensors aren't on the copies; hooks on modules run. What a module
keeps outside its parameters, buffers, and plain lists and dicts of tensors is its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from convscope.core.errors import ConvscopeError
from convscope.core.inference import outside_inference_mode
from convscope.core.preserved import preserved_structure
from convscope.cost.measured.copies import Copier, hold_copies, refer_to_copies
from convscope.cost.measured.failures import SETTING_UP, step_failed
from convscope.tape import TrainingPlan
from convscope.tape.attention import attention_in_parts
from convscope.tape.step import autocast_of, loss_of, run_inference, trainable
from convscope.tape.substrate import Inputs

Phase = Callable[[str], AbstractContextManager[Any]]
"""Called with ``"zero-grad"``, ``"forward"``, ``"loss"``, ``"backward"`` or ``"optimizer"``; surrounds it."""


@dataclass
class RealStep:
    """A network on copies of its tensors, its inputs and its optimizer; made by :func:`real_step`.

    Attributes:
        model: the user's modules, which hold copies of their tensors for now.
        args, kwargs: the inputs.
        plan: the training step; None for inference.
        device: where it runs.
    """

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    plan: TrainingPlan | None
    device: torch.device
    _parameters: list[nn.Parameter] = field(default_factory=list)
    optimizer: torch.optim.Optimizer | None = None
    _scaler: torch.amp.GradScaler | None = None

    def __post_init__(self) -> None:
        if self.plan is None:
            return
        self._parameters = trainable(self.model)
        if self._parameters:
            self.optimizer = self.plan.make_optimizer(self._parameters)
            for group in self.optimizer.param_groups:
                group["lr"] = 0.0
        if self.plan.precision == "amp-fp16":
            self._scaler = torch.amp.GradScaler(self.device.type)

    def run(self, phase: Phase = lambda _: nullcontext()) -> None:
        """Run one step, each part of it surrounded by ``phase(name)``.

        Raises:
            ConvscopeError: the network, the loss or the optimizer raises an exception, which is its cause.
        """
        reached = SETTING_UP

        def noting(name: str) -> AbstractContextManager[Any]:
            nonlocal reached
            reached = name
            return phase(name)

        with _told(lambda: reached, self.model, self.plan, self.device):
            self._run(noting)

    def _run(self, phase: Phase) -> None:
        if self.plan is None:
            with phase("forward"):
                run_inference(self.model, self.args, self.kwargs)
            return
        with phase("zero-grad"):
            self._zero_gradients(self.plan)
        with torch.enable_grad():
            with autocast_of(self.plan, self.device.type):
                with phase("forward"):
                    outputs = self.model(*self.args, **self.kwargs)
                with phase("loss"):
                    loss = loss_of(outputs, self.plan)
            with phase("backward"):
                (self._scaler.scale(loss) if self._scaler else loss).backward()  # type: ignore[no-untyped-call]
        with phase("optimizer"):
            self._update(self.plan)

    def _zero_gradients(self, plan: TrainingPlan) -> None:
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=plan.zero_grad_set_to_none)

    def _update(self, plan: TrainingPlan) -> None:
        optimizer, scaler = self.optimizer, self._scaler
        if optimizer is None or all(parameter.grad is None for parameter in self._parameters):
            return
        if plan.clip_grad_norm is not None:
            if scaler is not None:
                scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(self._parameters, plan.clip_grad_norm, foreach=bool(plan.foreach))
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()


@contextmanager
def real_step(
    model: nn.Module, inputs: Inputs, plan: TrainingPlan | None, device: torch.device | None = None
) -> Iterator[RealStep]:
    """Run a block with a step of ``model`` that can really be run; afterwards the model is as it was.

    Random numbers are drawn: callers surround it with :func:`convscope.core.preserved.preserved_rng`.

    Args:
        model: any eager module; its own tensors are never written, also if it fails.
        inputs: a tensor, a tuple or dict of tensors, or a shape, which is filled with random numbers.
        plan: the training step, with a model in training mode left in its modules' own modes; None for
            inference in evaluation mode, without gradients.
        device: where to run; the model's own by default.

    Raises:
        ConvscopeError: there is no room for the copies, or the device doesn't take them.

    Example:
        >>> net = nn.BatchNorm2d(3)
        >>> with real_step(net, (4, 3, 5, 5), TrainingPlan()) as step:
        ...     step.run()
        >>> int(net.num_batches_tracked), net.weight.grad
        (0, None)
    """
    place = device or device_of(model)
    copy = Copier(place, _dtype_of(plan), channels_last=plan is not None and plan.channels_last)
    eager = torch.compiler.set_stance("force_eager")
    with preserved_structure(model), outside_inference_mode(), eager, attention_in_parts():
        if plan is None:
            model.eval()
        elif not model.training:
            model.train()
        with _told(lambda: SETTING_UP, model, plan, place):
            for module in model.modules():
                hold_copies(module, copy)
            for module in model.modules():
                refer_to_copies(module, copy)
            args, kwargs = _called_with(inputs, copy, _floating_dtype(model))
            step = RealStep(model, args, kwargs, plan, place)
        del copy, args, kwargs  # they hold what the model may let go of
        yield step


@contextmanager
def _told(
    phase: Callable[[], str], model: nn.Module, plan: TrainingPlan | None, device: torch.device
) -> Iterator[None]:
    """Have exceptions told in one line; those that say so already, and Ctrl-C, pass through."""
    try:
        yield
    except ConvscopeError:
        raise
    except Exception as error:
        raise step_failed(phase(), error, model, plan, device) from error


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter or buffer; the CPU if it has none."""
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


def _called_with(inputs: Inputs, copy: Copier, dtype: torch.dtype) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def real(item: Any) -> Any:
        if isinstance(item, tuple) and all(type(size) is int for size in item):
            return copy.noise(item, dtype)
        return tree_map(lambda leaf: copy(leaf) if isinstance(leaf, torch.Tensor) else leaf, item)

    if isinstance(inputs, Mapping):
        return (), {str(name): real(item) for name, item in inputs.items()}
    if isinstance(inputs, Sequence) and not all(type(size) is int for size in inputs):
        return tuple(real(item) for item in inputs), {}
    return (real(tuple(inputs) if isinstance(inputs, torch.Size) else inputs),), {}


def _floating_dtype(model: nn.Module) -> torch.dtype:
    floating = (t.dtype for t in (*model.parameters(), *model.buffers()) if t.is_floating_point())
    return next(floating, torch.get_default_dtype())


def _dtype_of(plan: TrainingPlan | None) -> torch.dtype | None:
    return torch.bfloat16 if plan is not None and plan.precision == "bf16" else None
