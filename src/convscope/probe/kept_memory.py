"""Freed memory kept from one batch to the next, for runs of a recorded network over several of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate

from convscope.core.allocator import memory_kept
from convscope.core.memory import available_memory
from convscope.tape import Tape


@contextmanager
def memory_kept_for(tape: Tape | None, batches: float = 1.0) -> Iterator[None]:
    """Have the C library keep freed memory in a block that runs a network on a CPU; nothing computed differs.

    Args:
        tape: of one run of the network; None where it couldn't be recorded: then, and on a GPU, nothing is
            done.
        batches: how many times as many images as the tape's are run at once.
    """
    available = available_memory()
    if tape is None or tape.device != "cpu" or available is None:
        yield
        return
    held = sum(storage.nbytes for storage in tape.storages if storage.birth < 0)
    with memory_kept(held + int(batches * (peak_bytes(tape) - held)), available):
        yield


def peak_bytes(tape: Tape) -> int:
    """Return the most bytes that a recorded run holds at once, parameters and inputs included.

    Example:
        >>> from torch import nn
        >>> from convscope.tape import record
        >>> peak_bytes(record(nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU()), (5, 7), device="cpu"))
        420
    """
    changes = [0] * (len(tape.calls) + 2)
    for storage in tape.storages:
        changes[max(storage.birth, 0)] += storage.nbytes
        changes[len(tape.calls) + 1 if storage.death is None else storage.death] -= storage.nbytes
    return max(accumulate(changes))
