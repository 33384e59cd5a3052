"""What a check-up is given beside data."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from convscope.checkup.measuring.criterion import Criterion, Loss
from convscope.checkup.plan import CheckupPlan
from convscope.core.errors import ConvscopeError


@dataclass(frozen=True)
class Subject:
    """What a check-up is given beside data; see :func:`convscope.checkup.checkup`.

    Attributes:
        num_classes: of the data, where that says so.
    """

    model: nn.Module
    loss: Loss | None
    optimizer: Any
    reference: Any
    plan: CheckupPlan
    num_classes: int | None = None

    @property
    def criterion(self) -> Criterion:
        """How losses are taken."""
        return Criterion(self.loss, self.num_classes)

    def __post_init__(self) -> None:
        if self.loss is not None and not callable(self.loss):
            raise ConvscopeError(
                f"loss of type {type(self.loss).__name__}",
                "a function of outputs and labels",
                "pass the loss as loss=, the optimizer as optimizer=",
            )
