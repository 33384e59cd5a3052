"""Where batch norm's kernels run: where they are installed, wanted, and faster.

What decides is known before a batch is looked at (its shape, dtype, layout and device), and nothing is timed
on the way, so that a run ends with the same bits each time.

Limits: kernels sum in another order than PyTorch's operators do, so a run with them ends with other last bits
than one without.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from convscope.norm.fast import gpu
from convscope.norm.fast.layout import is_by_planes, is_by_rows

_LEAST_VALUES = 1 << 15
"""Below, a call's own 20 µs count."""
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
    return x.device.type == "cpu" and _cpu_takes(x) and _is_installed("numba")


def _cpu_takes(x: Tensor) -> bool:
    if x.dtype not in (torch.float32, torch.bfloat16) or x.dim() < 2 or x.numel() < _LEAST_VALUES:
        return False
    return is_by_planes(x) or (x.shape[1] >= _LEAST_CHANNELS and is_by_rows(x))


@cache
def _is_installed(package: str) -> bool:
    return find_spec(package) is not None
