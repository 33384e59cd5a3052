"""What folding is judged by, apart from the library: operators that really run, and outputs in float64."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WRONG = 1e-9
"""Relative error in float64 above which an output is wrong; right folds stay below 1e-12."""

Runs = Callable[[Tensor], Any]


class _BatchNorms(TorchDispatchMode):
    """Counts batch norms as PyTorch dispatches them, whoever calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operator."""
        self.count += "batch_norm" in func.overloadpacket._qualified_op_name
        return func(*args, **kwargs or {})


class _Functions(TorchFunctionMode):
    """Counts calls from Python that return tensors and aren't batch norms: a linear layer is one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one function."""
        result = func(*args, **kwargs or {})
        computes = isinstance(result, Tensor | tuple | list) and not isinstance(result, torch.Size)
        self.count += computes and getattr(func, "__name__", "") not in ("__get__", "batch_norm")
        return result


@torch.no_grad()
def batch_norms_run(network: Runs, inputs: Tensor) -> int:
    """Return how many batch norms run in a forward pass."""
    with _BatchNorms() as counted:
        network(inputs)
    return counted.count


@torch.no_grad()
def functions_run(network: Runs, inputs: Tensor) -> int:
    """Return how many functions of tensors a forward pass calls, without batch norms."""
    with _Functions() as counted:
        network(inputs)
    return counted.count


def outputs(network: Runs, inputs: Tensor) -> list[Tensor]:
    """Return every tensor that a network gives for a copy of the inputs."""
    with torch.no_grad():
        return [leaf for leaf in tree_leaves(network(inputs.clone())) if isinstance(leaf, Tensor)]


def in_float64(network: nn.Module) -> nn.Module:
    """Return a copy of a network in float64, in evaluation mode."""
    return copy.deepcopy(network).double().eval()


def relative_error(expected: Sequence[Any], found: Sequence[Any]) -> float:
    """Return the largest over the outputs of max|y − y₀| / max|y₀|; infinite where they don't correspond."""
    pairs = [(torch.as_tensor(a).double(), torch.as_tensor(b).double()) for a, b in zip(expected, found)]
    if len(expected) != len(found) or any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    errors = [((a - b).abs().max() / a.abs().max().clamp_min(1e-300)).item() for a, b in pairs if a.numel()]
    return float("inf") if any(error != error for error in errors) else max(errors, default=0.0)
