"""Where a network holds its tensors."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Slot:
    """Where a network holds a tensor.

    Attributes:
        path: the module's path, ``""`` for the network itself.
        attribute: the tensor's name in that module.
    """

    path: str
    attribute: str

    @property
    def name(self) -> str:
        """The tensor's name in the network, as in its state dict."""
        return f"{self.path}.{self.attribute}" if self.path else self.attribute

    def module_in(self, model: nn.Module) -> nn.Module:
        """Return the module that holds the tensor."""
        return model.get_submodule(self.path)

    def tensor_in(self, model: nn.Module) -> torch.Tensor:
        """Return the tensor."""
        tensor: torch.Tensor = getattr(self.module_in(model), self.attribute)
        return tensor
