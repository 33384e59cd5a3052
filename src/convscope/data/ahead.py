"""Reading ahead: threads read the next pictures while the network works on these; order is kept."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_THREADS = 16


def default_threads() -> int:
    """Return how many processors this process may use, 16 at most."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MOST_THREADS)


def read_ahead(
    read: Callable[[Item], Result], items: Iterable[Item], threads: int, most: int
) -> Generator[Result]:
    """Yield ``read(item)`` for each item, in order, at most ``most`` items ahead of who asks.

    Nothing is read before the first result is asked for. An exception comes where its item's result would
    have come; it ends the iteration. Whoever stops early should close the iterator: what hasn't begun is
    cancelled, what has begun is waited for.

    Args:
        read: runs in threads; pays where it lets go of Python's lock, as Pillow's decoders do.
        items: taken one after the other, in the thread that asks.
        threads: 0 reads in the thread that asks, and nothing ahead.
        most: results that may wait at once, which bounds the memory.

    Example:
        >>> list(read_ahead(lambda x: x * x, range(5), threads=2, most=3))
        [0, 1, 4, 9, 16]
    """
    if not threads:
        yield from map(read, items)
        return
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="convscope-read")
    try:
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
