"""Answers that were counted in strides, for networks that run at multiples of some batch alone, in items."""

from dataclasses import replace

from convscope.cost.batch.values import BatchBound


def in_items(found: BatchBound, stride: int) -> BatchBound:
    """Return an answer whose batches were counted in strides.

    Args:
        found: the answer.
        stride: items in one.
    """
    if stride == 1:
        return found
    each = found.bytes_per_item
    return replace(
        found,
        batch=found.batch * stride,
        stops_at=None if found.stops_at is None else found.stops_at * stride,
        multiple_of_8=found.multiple_of_8 * stride,
        holes=tuple(batch * stride for batch in found.holes),
        bound=found.bound * stride,
        bytes_per_item=None if each is None else each // stride,
    )
