"""What a model returned: the floating tensors in it, and its fields by name."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves


def tensors_of(outputs: Any) -> list[Tensor]:
    """Return the floating tensors in what a model returned: tensors, containers, output objects."""
    if not isinstance(outputs, Tensor | list | tuple | Mapping) and hasattr(outputs, "__dict__"):
        outputs = vars(outputs)
    if isinstance(outputs, Mapping):
        outputs = dict(outputs)
    return [t for t in tree_leaves(outputs) if isinstance(t, Tensor) and t.is_floating_point()]


def named(outputs: Any, name: str) -> Tensor | None:
    """Return the floating tensor of that key or field; None if there is none.

    Example:
        >>> import torch
        >>> named({"loss": torch.tensor(2.0)}, "loss"), named(torch.zeros(2), "loss")
        (tensor(2.), None)
    """
    if isinstance(outputs, Tensor):
        return None
    found = outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
    return found if isinstance(found, Tensor) and found.is_floating_point() else None
