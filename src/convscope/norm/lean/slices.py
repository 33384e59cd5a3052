"""Whether a value is made again slice by slice of the batch: each slice then stays in the processor's cache.

A norm, a ReLU and a sum that run one after the other over the whole batch read and write it in memory three
times; slice by slice, once. The bits are the same for operators that round every result once, or that go
through the samples one after the other anyway, as batch norm's kernel does.

Limits: CPUs only; maps that share the value's shape and layout, whose samples follow one another.
"""

from typing import Any

import torch

from convscope.norm.lean.operators import batch_norm_by_its_statistics
from convscope.norm.lean.values import Origin, Value

_SLICE = 2**19
"""Bytes of a slice; several of them have to stay in a core's cache."""
_WORTH = 2**22
"""Bytes of a value from which slices pay."""
_SAME_BITS = {"relu", "hardtanh", "leaky_relu", "threshold", "clamp", "clamp_min", "add", "sub", "mul", "neg"}


def samples_at_a_time(value: Value, origins: list[Origin]) -> int | None:
    """Return how many samples a slice has; None if the operators had better run on the whole batch.

    Args:
        value: that is wanted.
        origins: the operators on the way to it.
    """
    shape = value.geometry[0]
    if value.device != "cpu" or value.nbytes < _WORTH or len(origins) < 2 or not shape:
        return None
    if not all(_goes_by_samples(origin, value) for origin in origins):
        return None
    samples = max(1, _SLICE * shape[0] // value.nbytes)
    return samples if 2 * samples <= shape[0] else None


def _goes_by_samples(origin: Origin, value: Value) -> bool:
    if origin.func is not batch_norm_by_its_statistics and not _rounds_once(origin.func):
        return False
    if origin.kwargs.get("alpha", 1) != 1 or any(result is not None for result in origin.results[1:]):
        return False
    result = origin.results[0]
    made = None if result is None else result()
    return (
        made is not None
        and made.geometry == value.geometry
        and made.dtype == value.dtype
        and _samples_follow(value)
    )


def _rounds_once(func: Any) -> bool:
    return isinstance(func, torch._ops.OpOverload) and func._opname in _SAME_BITS


def _samples_follow(value: Value) -> bool:
    """Whether every sample is a block of memory of its own, one after the other."""
    (batch, *_), (stride, *_), _ = value.geometry
    return stride * batch * value.dtype.itemsize == value.nbytes
