"""Processes that share one command's work: what ``torchrun`` starts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sharing() -> Iterator[bool]:
    """Let the processes of ``torchrun`` know of one another; yield whether this one writes and prints.

    They talk by gloo, which needs no device.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield True
        return
    from torch import distributed

    distributed.init_process_group("gloo")
    try:
        yield distributed.get_rank() == 0
    finally:
        distributed.destroy_process_group()
