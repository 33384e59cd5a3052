"""The training step that a recording simulates."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch

from convscope.core.errors import ConvscopeError

Optimizer = Literal["sgd", "sgd-momentum", "adam", "adamw", "rmsprop"]
Precision = Literal["fp32", "amp-fp16", "amp-bf16", "bf16"]


@dataclass(frozen=True)
class TrainingPlan:
    """How the simulated training step is made.

    Attributes:
        optimizer: ``"sgd"``, ``"sgd-momentum"`` (momentum 0.9), ``"adam"``, ``"adamw"`` or ``"rmsprop"``.
        precision: ``"fp32"``: the model's own dtypes; ``"amp-fp16"``, ``"amp-bf16"``: automatic mixed
            precision, forward and loss under ``torch.autocast``, with a ``GradScaler`` for float16 which
            skips no step; ``"bf16"``: all floating parameters, buffers and inputs in bfloat16.
        foreach: PyTorch's choice of optimizer kernels: True (the default on GPUs), False or ``"fused"``.
        zero_grad_set_to_none: False keeps gradients allocated between steps.
        clip_grad_norm: maximum norm for ``torch.nn.utils.clip_grad_norm_``, or None.
        loss: ``"cross-entropy"`` over the outputs' axis 1 (the mean where an output has one axis), summed
            over all floating outputs; or a callable ``loss(outputs) -> scalar tensor``.
        channels_last: parameters, buffers and inputs with four axes lie in ``torch.channels_last`` order,
            those with five in ``torch.channels_last_3d``.

    Raises:
        ConvscopeError: a field has a value that isn't in its list.

    Example:
        >>> TrainingPlan(optimizer="adamw").state_values_per_parameter
        2
    """

    optimizer: Optimizer = "sgd-momentum"
    precision: Precision = "fp32"
    foreach: bool | Literal["fused"] = True
    zero_grad_set_to_none: bool = True
    clip_grad_norm: float | None = None
    loss: Literal["cross-entropy"] | Callable[[Any], torch.Tensor] = "cross-entropy"
    channels_last: bool = False

    def __post_init__(self) -> None:
        _check("optimizer", self.optimizer, get_args(Optimizer))
        _check("precision", self.precision, get_args(Precision))
        _check("foreach", self.foreach, (True, False, "fused"))
        if not callable(self.loss):
            _check("loss", self.loss, ("cross-entropy",))
        if self.optimizer == "rmsprop" and self.foreach == "fused":
            raise ConvscopeError(
                "TrainingPlan(optimizer='rmsprop', foreach='fused')",
                "True or False: PyTorch has no fused RMSprop",
                "choose foreach=True",
            )
        if self.clip_grad_norm is not None and not self.clip_grad_norm > 0:
            raise ConvscopeError(
                f"clip_grad_norm={self.clip_grad_norm}", "a positive number or None", "change it"
            )

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """What automatic mixed precision computes in, or None without it."""
        return {"amp-fp16": torch.float16, "amp-bf16": torch.bfloat16}.get(self.precision)

    @property
    def state_values_per_parameter(self) -> int:
        """Values that the optimizer keeps per parameter: 0 for SGD, 1 with momentum, 2 for Adam."""
        return {"sgd": 0, "sgd-momentum": 1, "rmsprop": 1, "adam": 2, "adamw": 2}[self.optimizer]

    def make_optimizer(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """Return PyTorch's optimizer of this plan over ``parameters`` (learning rate 0.01)."""
        kernels: dict[str, Any] = {"fused": True} if self.foreach == "fused" else {"foreach": self.foreach}
        if self.optimizer in ("sgd", "sgd-momentum"):
            momentum = 0.9 if self.optimizer == "sgd-momentum" else 0.0
            return torch.optim.SGD(parameters, lr=0.01, momentum=momentum, **kernels)
        classes: dict[str, type[torch.optim.Optimizer]] = {
            "adam": torch.optim.Adam,
            "adamw": torch.optim.AdamW,
            "rmsprop": torch.optim.RMSprop,
        }
        return classes[self.optimizer](parameters, lr=0.01, **kernels)  # type: ignore[call-arg]


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
        if name not in ("optimizer", "precision") and value != getattr(TrainingPlan(), name)
    ]
    return ", ".join([plan.optimizer, plan.precision, *changed])


def _check(field: str, value: object, allowed: tuple[object, ...]) -> None:
    if not any(value is choice or (value == choice and type(value) is type(choice)) for choice in allowed):
        raise ConvscopeError(
            f"TrainingPlan({field}={value!r})",
            "one of " + ", ".join(map(repr, allowed)),
            "choose one of them",
        )
