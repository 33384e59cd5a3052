"""Whose operators a recording imitates: a CUDA device's or the CPU's."""

from typing import Literal

from torch import nn

Device = Literal["cuda", "cpu"]


def device_of(model: nn.Module) -> Device:
    """Return where a model runs as it stands: on CUDA if its first parameter or buffer lies there.

    Example:
        >>> device_of(nn.Linear(2, 2))
        'cpu'
    """
    tensors = (*model.parameters(), *model.buffers())
    return "cuda" if tensors and tensors[0].is_cuda else "cpu"
