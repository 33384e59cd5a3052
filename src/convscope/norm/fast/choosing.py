"""Where batch norm's kernels run: where they are installed, wanted, and faster.

What decides is known before a batch is looked at (its shape, dtype, layout and device), and nothing is timed
on the way, so that a run ends with the same bits each time.

Limits: kernels sum in another order than PyTorch's operators do, so a run with them ends with other last bits
than one without.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from convscope.norm.fast import gpu
from convscope.norm.fast.layout import is_by_planes, is_by_rows

_GLOBAL_HOOKS = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)
_LEAST_VALUES = 1 << 15
"""Below, even ``engine``'s many small calls take no longer."""
_PAYING_VALUES = 1 << 18
"""Below, PyTorch's batch norm and ReLU are faster: contiguous float32."""
_PAYING_ELSEWHERE = 1 << 21
"""The same in channels_last and in bfloat16, where PyTorch is faster itself."""
_LEAST_CHANNELS = 16
"""Channels of a row: below, a row is shorter than a processor's registers."""

_wanted = os.environ.get("CONVSCOPE_KERNELS", "1").lower() not in ("0", "off", "no", "false")


@contextmanager
def kernels(*, enabled: bool) -> Iterator[None]:
    """Have batch norm use its own kernels, or PyTorch's operators alone, in a block; for all threads.

    The variable ``CONVSCOPE_KERNELS=0`` does it for a whole process.

    Args:
        enabled: whether kernels may run: where they are installed (on CPUs: numba, ``pip install
            'convscope[kernels]'``; on NVIDIA GPUs: Triton, which comes with PyTorch) and faster.

    Example:
        >>> layer, x = torch.nn.Identity(), torch.ones(2, 3)
        >>> with kernels(enabled=False):
        ...     y = layer(x)
    """
    global _wanted
    before, _wanted = _wanted, enabled
    try:
        yield
    finally:
        _wanted = before


def takes(x: Tensor) -> bool:
    """Whether kernels are to normalise a batch (N, C, …).

    Not while anything records operators, but for ``lean``: a recording sees those that it has rules for.
    """
    if torch.compiler.is_compiling() or not _wanted or type(x) not in (Tensor, torch.nn.Parameter):
        return False
    if not all(getattr(mode, "knows_kernels", False) for mode in _get_current_dispatch_mode_stack()):
        return False
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    if x.is_cuda:
        return _is_installed("triton") and torch.version.hip is None and gpu.takes(x)
    return x.device.type == "cpu" and _cpu_takes(x) and _has_numba()


def beats_torch(x: Tensor) -> bool:
    """Whether kernels are faster than PyTorch's batch norm and activation for a batch that they take."""
    easily = x.dtype is torch.float32 and is_by_planes(x)
    return x.is_cuda or x.numel() >= (_PAYING_VALUES if easily else _PAYING_ELSEWHERE)


def has_hooks(module: nn.Module) -> bool:
    """Whether a module's own hooks see what it is given or returns.

    Example:
        >>> activation = nn.ReLU()
        >>> handle = activation.register_forward_hook(lambda module, args, result: None)
        >>> has_hooks(activation), has_hooks(nn.ReLU())
        (True, False)
    """
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def is_looked_at(module: nn.Module) -> bool:
    """Whether hooks, its own or those for all modules, see what a module is given or returns.

    Example:
        >>> is_looked_at(nn.ReLU())
        False
    """
    return has_hooks(module) or not all(
        getattr(hook, "knows_kernels", False)
        for hook in chain.from_iterable(getattr(torch_module, kind).values() for kind in _GLOBAL_HOOKS)
    )


_Function = Callable[..., Any]


def knows_kernels(hook: _Function) -> _Function:
    """Mark a hook for all modules that doesn't mind a norm that has taken its activation along."""
    hook.__dict__["knows_kernels"] = True
    return hook


def _cpu_takes(x: Tensor) -> bool:
    if x.dtype not in (torch.float32, torch.bfloat16) or x.dim() < 2 or x.numel() < _LEAST_VALUES:
        return False
    return is_by_planes(x) or (x.shape[1] >= _LEAST_CHANNELS and is_by_rows(x))


@cache
def _is_installed(package: str) -> bool:
    return find_spec(package) is not None


@cache
def _has_numba() -> bool:
    """Whether kernels can be compiled; a numba that can't be imported, beside a newer NumPy, is reported."""
    if not _is_installed("numba"):
        return False
    try:
        import_module("convscope.norm.fast.cpu.run")
    except Exception as error:  # whatever a broken installation raises
        warnings.warn(
            f"numba is installed but can't be imported ({error}); batch norm runs by PyTorch's operators; "
            "install a numba that fits the installed NumPy",
            stacklevel=2,
        )
        return False
    return True
