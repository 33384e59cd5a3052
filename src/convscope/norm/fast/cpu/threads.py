"""A kernel's range of channels or rows, divided among as many threads as PyTorch uses."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from typing import Any

import torch


def divided(kernel: Callable[..., None], length: int, *args: Any) -> None:
    """Run ``kernel(*args, first, last)`` for the parts of 0 … length; return when all are done.

    The parts are as many as ``torch.get_num_threads()``, and never empty. Kernels hold no lock while they
    run. What a kernel raises is raised when all parts are done, so that nothing is written any more.
    """
    threads = min(torch.get_num_threads(), length)
    if threads <= 1:
        kernel(*args, 0, length)
        return
    bounds = [length * part // threads for part in range(threads + 1)]
    others: list[Future[None]] = []
    try:
        for first, last in pairwise(bounds[1:]):
            try:
                others.append(_pool(os.getpid(), threads - 1).submit(kernel, *args, first, last))
            except RuntimeError:  # no thread starts once the main one has ended; this one may go on
                if threading.main_thread().is_alive():
                    raise
                kernel(*args, first, last)
        kernel(*args, 0, bounds[1])
    finally:
        wait(others)
    for other in others:
        other.result()


@cache
def _pool(_process: int, threads: int) -> ThreadPoolExecutor:
    """The threads of a process; those of its parent don't run in a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="convscope-kernel")
