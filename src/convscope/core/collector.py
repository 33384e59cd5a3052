"""Python's collector of reference cycles, kept from running where it would disturb a measurement."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_at_rest(*, collect_first: bool = True) -> Iterator[None]:
    """Run a block during which reference cycles aren't collected.

    Args:
        collect_first: collect those that there are before the block begins.
    """
    enabled = gc.isenabled()
    if collect_first:
        gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
