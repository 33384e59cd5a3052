"""What a check-up is given beside data."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from convscope.checkup.measuring.criterion import Loss
from convscope.checkup.plan import CheckupPlan
from convscope.core.errors import ConvscopeError


@dataclass(frozen=True)
class Subject:
    """What a check-up is given beside data; see :func:`convscope.checkup.checkup`."""

    model: nn.Module
    loss: Loss | None
    optimizer: Any
    reference: Any
    plan: CheckupPlan

    def __post_init__(self) -> None:
        if self.loss is not None and not callable(self.loss):
            raise ConvscopeError(
                f"loss of type {type(self.loss).__name__}",
                "a function of outputs and labels",
                "pass the loss as loss=, the optimizer as optimizer=",
            )
