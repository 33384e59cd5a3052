"""Large new tensors in pages of 2 MiB, where Linux gives them on request only.

For a block of 32 MiB and more that fits into no hole of its heap glibc asks the kernel, which clears and maps
it page by page, as it is first written to: filling 98 MiB took 35 ms in pages of 4 KiB, 5.8 ms in pages of
2 MiB, and 2.4 ms where the pages were there already (AMD EPYC, a virtual machine). Asking for large pages
costs 2 µs.

Limits: Linux in the mode "madvise", which is most distributions' default; elsewhere nothing happens, nor
where the process has forbidden large pages or the kernel has none left. Smaller tensors come from the heap,
most of whose pages are there already (``allocator``). The kernel's advice has no effect on numbers.

Source: the Linux kernel's documentation, ``admin-guide/mm/transhuge.rst``; the manual page of ``madvise``.
"""

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from convscope.core.units import MIB

LARGE = 32 * MIB
"""Bytes from which glibc never takes a block from its heap."""
_ADVICE_HUGE_PAGES = 14
_MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def empty_like(x: Tensor) -> Tensor:
    """Return a new tensor of x's shape, dtype, device and layout, with undefined numbers, in large pages.

    Args:
        x: any tensor.

    Returns:
        What ``torch.empty_like(x)`` returns.

    Example:
        >>> empty_like(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """
    return advised(torch.empty_like(x))


def advised(tensor: Tensor) -> Tensor:
    """Ask the kernel for large pages under a tensor that has just been made and isn't written to yet.

    Args:
        tensor: any; what isn't on the CPU, has less than 32 MiB or has no memory (simulated) is left alone.

    Returns:
        The tensor itself.
    """
    if type(tensor) is Tensor and tensor.device.type == "cpu" and not torch.compiler.is_compiling():
        advise = _advice()
        if advise is not None and not torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            storage = tensor.untyped_storage()
            if storage.nbytes() >= LARGE:
                _advise(advise, storage.data_ptr(), storage.nbytes())
    return tensor


def _advise(advise: Callable[[int, int, int], int], begin: int, nbytes: int) -> None:
    """Advise on the pages of which the block has every byte."""
    page = _page_bytes()
    first = -(-begin // page) * page
    advise(first, (begin + nbytes) // page * page - first, _ADVICE_HUGE_PAGES)


@cache
def _page_bytes() -> int:
    import resource  # not on Windows

    return resource.getpagesize()


@cache
def _advice() -> Callable[[int, int, int], int] | None:
    """The kernel's ``madvise``, if large pages are given on request only."""
    if sys.platform != "linux":
        return None
    try:
        if "[madvise]" not in _MODE.read_text():
            return None
        advise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return advise
