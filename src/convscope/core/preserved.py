"""The promise that a model comes back as it was.

:func:`preserved` is for tools that run the user's real model (the probe does all such runs). It keeps
copies of parameters and buffers, so it costs their memory once.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)
_WHOLE_NUMBERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_CONTAINERS = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", *_HOOKS)


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Run a block after which the model and the random number generators are as they were before.

    Restored, also after an exception: which parameters, buffers, submodules, hooks and attributes every
    module has, and in which order; the values of parameters and buffers, bit for bit and in the same
    tensors; gradients; ``requires_grad``; every module's ``training`` flag; the state of Python's, NumPy's
    and PyTorch's generators (CPU, and CUDA where it is in use).

    Args:
        model: any module; shared parameters and modules stay shared.

    Not covered: objects outside the model, attributes' own contents deeper than one list or dict, and
    tensors that are neither parameters nor buffers.

    Example:
        >>> bn = nn.BatchNorm1d(3)
        >>> with preserved(bn):
        ...     _ = bn(torch.randn(8, 3))
        >>> int(bn.num_batches_tracked)
        0
    """
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
    contents = [(t, t.detach().clone(), t.requires_grad, t.grad) for t in tensors.values() if not _is_lazy(t)]
    gradients = [(t, t.grad.detach().clone()) for t, _, _, _ in contents if t.grad is not None]
    with preserved_rng():
        try:
            with preserved_structure(model):
                yield
        finally:
            with torch.no_grad():
                for tensor, content, requires_grad, gradient in contents:
                    if not same_bits(tensor, content):
                        tensor.copy_(content)
                    if tensor.requires_grad != requires_grad:
                        tensor.requires_grad_(requires_grad)
                    tensor.grad = gradient
                for tensor, content in gradients:
                    if tensor.grad is not None:
                        tensor.grad.copy_(content)


@contextmanager
def preserved_structure(model: nn.Module) -> Iterator[None]:
    """Run a block after which every module has the attributes, tensors, submodules and hooks it had before.

    The contents of tensors aren't kept: for tools that never write to the model's own tensors, because
    they put others in their place. Costs no memory worth mentioning.
    """
    snapshots = [_Snapshot(module) for module in model.modules()]
    try:
        yield
    finally:
        for snapshot in snapshots:
            snapshot.restore()


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Run a block after which Python's, NumPy's and PyTorch's generators are as they were before."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (the user's global state)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


class _Snapshot:
    """A module's ``__dict__``, with its containers and its plain list and dict attributes copied."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.attributes = dict(module.__dict__)
        self.containers: list[tuple[Any, Any]] = [
            (value, value.copy())
            for name, value in self.attributes.items()
            if name in _CONTAINERS or type(value) in (list, dict, set)
        ]

    def restore(self) -> None:
        for container, copy in self.containers:
            if isinstance(container, list):
                container[:] = copy
            else:
                container.clear()
                container.update(copy)
        self.module.__dict__.clear()
        self.module.__dict__.update(self.attributes)


def _is_lazy(tensor: torch.Tensor) -> bool:
    return nn.parameter.is_lazy(tensor)


def same_bits(tensor: torch.Tensor, content: torch.Tensor) -> bool:
    """Return whether two tensors hold the same bits, NaNs included."""
    if tensor.shape != content.shape or tensor.dtype != content.dtype:
        return False
    whole_numbers = _WHOLE_NUMBERS.get(tensor.itemsize, torch.uint8)
    bits, kept = (t.detach().reshape(-1).view(whole_numbers) for t in (tensor, content))
    return bool(torch.equal(bits, kept))
