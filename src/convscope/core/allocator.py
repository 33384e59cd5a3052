"""Memory that one pass of a network frees stays with the process for the next one.

On Linux PyTorch's CPU tensors come from glibc's ``malloc``. It asks the kernel for each block above 32 MiB,
gives it back when it is freed, and does the same with what lies free at the heap's end. A pass over a batch
frees nearly all of its activations, so the kernel clears and maps them anew for every batch: 5 to 37 % of the
processor time of six networks' training steps. Here the heap keeps them.

Limits: glibc (not musl, not macOS); settings of its own that the environment makes are left alone; another
allocator that was loaded in front of it isn't affected. The heap's holes take memory, up to a fifth of a
step's peak as measured. What the thresholds were before can't be read: afterwards they are what glibc sets
by itself once a block of 32 MiB has been freed.

Source: the manual page of ``mallopt``; figures: ``python -m bench allocator``.
"""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from convscope.core.units import MIB

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER, _DEFAULT_MMAP_MAX, _LARGEST_THRESHOLD = -1, 65536, 32 * MIB
_HOLES = 1.5
"""So many times a pass's peak have to be there."""

_LOCK = threading.Lock()
_open = 0
"""Blocks that are open in this process, whose settings they are; the last one to end undoes them."""


@contextmanager
def memory_kept(peak_bytes: int | None, available_bytes: int | None) -> Iterator[None]:
    """Have the C library keep freed memory for a block that has room for it.

    Args:
        peak_bytes: the most memory that a pass takes; None where it is negligible beside what there is.
        available_bytes: what there is; None where the system doesn't say.

    Example:
        >>> with memory_kept(None, None):
        ...     pass
    """
    library = None if not _has_room(peak_bytes, available_bytes) or _is_set_outside() else _glibc()
    if library is None:
        yield
        return
    _begin(library)
    try:
        yield
    finally:
        _end(library)


def _begin(library: ctypes.CDLL) -> None:
    global _open
    with _LOCK:
        _open += 1
        if _open == 1:
            library.mallopt(_MMAP_MAX, 0)
            library.mallopt(_TRIM_THRESHOLD, _NEVER)


def _end(library: ctypes.CDLL) -> None:
    global _open
    with _LOCK:
        _open -= 1
        if _open == 0:
            library.mallopt(_MMAP_MAX, _DEFAULT_MMAP_MAX)
            library.mallopt(_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
            library.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_THRESHOLD)
            library.malloc_trim(0)


def _has_room(peak_bytes: int | None, available_bytes: int | None) -> bool:
    if peak_bytes is None or available_bytes is None:
        return True
    return _HOLES * peak_bytes <= available_bytes


def _is_set_outside() -> bool:
    names = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
    return any(name in os.environ for name in names) or "glibc.malloc." in os.environ.get(
        "GLIBC_TUNABLES", ""
    )


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is glibc."""
    try:
        library = ctypes.CDLL(None)
        return library if hasattr(library, "gnu_get_libc_version") else None
    except (OSError, TypeError):  # Windows has no library of all symbols
        return None
