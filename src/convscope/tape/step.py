"""The step that is recorded when the user gives none: forward, loss, backward, clipping, optimizer."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from convscope.core.errors import ConvscopeError
from convscope.tape.plan import TrainingPlan

Step = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]
"""A user's own step: called with the model and its positional and keyword inputs; returns the outputs."""


def loss_of(outputs: Any, plan: TrainingPlan) -> torch.Tensor:
    """Return the scalar that the default step differentiates; see :attr:`TrainingPlan.loss`.

    Raises:
        ConvscopeError: no output depends on a trainable parameter.
    """
    if callable(plan.loss):
        return plan.loss(outputs)
    terms = [
        _cross_entropy(output)
        for output in tree_leaves(plain(outputs))
        if isinstance(output, torch.Tensor) and output.is_floating_point() and output.requires_grad
    ]
    if not terms:
        raise ConvscopeError(
            "a model none of whose floating outputs depends on a trainable parameter",
            "a trainable model for a training plan",
            "set requires_grad, or record inference with plan=None (--inference)",
        )
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def autocast_of(plan: TrainingPlan, device: str) -> AbstractContextManager[Any]:
    """Return the context that forward and loss run in: ``torch.autocast`` for mixed precision, else none."""
    dtype = plan.autocast_dtype
    return nullcontext() if dtype is None else torch.autocast(device, dtype=dtype)


class LossScaler(torch.amp.GradScaler):
    """PyTorch's gradient scaler in its steady state: nothing overflows, so every step is taken.

    It is disabled, and passes everything through, unless the plan is ``"amp-fp16"``.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        # "cpu" is where simulated tensors lie; a scaler does the same on every device.
        super().__init__("cpu", enabled=plan.precision == "amp-fp16")
        if self.is_enabled():
            self._lazy_init_scale_growth_tracker(torch.device("cpu"))

    @property
    def standing(self) -> list[torch.Tensor]:
        """What it keeps from step to step: the scale and a counter."""
        return [*self._check_scale_growth_tracker("standing")] if self.is_enabled() else []

    def _maybe_opt_step(
        self,
        optimizer: torch.optim.Optimizer,
        optimizer_state: dict[str, Any],  # noqa: ARG002 (where infinities would be looked up)
        *args: Any,
        **kwargs: Any,
    ) -> None:
        optimizer.step(*args, **kwargs)


def run_inference(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the model without gradients."""
    with torch.no_grad():
        return model(*args, **kwargs)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters which require gradients, tied ones once."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def plain(outputs: Any, within: tuple[int, ...] = ()) -> Any:
    """Return a network's outputs as nested lists, whatever holds them: mappings, dataclasses, other objects.

    Args:
        outputs: what the network returned.
        within: the ids of the containers around it, for objects that hold one another.
    """
    if isinstance(outputs, torch.Tensor):
        return outputs
    if id(outputs) in within or isinstance(outputs, nn.Module):
        return []
    if isinstance(outputs, list | tuple | set):
        items = list(outputs)
    elif hasattr(outputs, "items"):
        items = [item for _, item in outputs.items()]
    elif is_dataclass(outputs):
        items = [getattr(outputs, field.name) for field in fields(outputs)]
    else:
        items = list(vars(outputs).values()) if hasattr(outputs, "__dict__") else []
    return [plain(item, (*within, id(outputs))) for item in items]


def _cross_entropy(output: torch.Tensor) -> torch.Tensor:
    if output.dim() < 2:
        return output.mean()
    target = torch.zeros((output.shape[0], *output.shape[2:]), dtype=torch.long, device=output.device)
    return torch.nn.functional.cross_entropy(output, target)
