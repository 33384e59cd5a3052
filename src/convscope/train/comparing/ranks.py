"""The ranks of ``torchrun`` and ``accelerate launch``: each takes its share of the runs, for itself.

They wait for one another at two places, through a gloo group that no training ever sees: runs train in
processes of their own, whose environment names no rank.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from convscope.train.comparing.machine import Place

_LONG = timedelta(days=365)


@contextmanager
def together(at: Place) -> Iterator[Callable[[], None]]:
    """Yield a function in which every rank waits for all others; without a launcher it does nothing."""
    if at.size == 1:
        yield lambda: None
        return
    is_ours = not distributed.is_initialized()
    if is_ours:
        distributed.init_process_group("gloo", timeout=_LONG)
    group = distributed.group.WORLD if is_ours else distributed.new_group(backend="gloo", timeout=_LONG)
    try:
        # A sum over gloo, which has no use for a device.
        yield lambda: distributed.all_reduce(torch.zeros(1), group=group)
    finally:
        if is_ours:
            distributed.destroy_process_group()
