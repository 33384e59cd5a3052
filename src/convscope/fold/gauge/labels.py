"""Labels: which channel an element of a value belongs to, in arrays that don't repeat themselves.

A value of shape (2, 64, 56, 56) that a convolution wrote has 64 labels, laid out as an integer array of shape
(1, 64, 1, 1): along an axis of length 1 the label stays the same. Views, concatenations and shuffles do to
labels what they do to elements, so that channels keep their names through every transpose and reshape, and
sizes which happen to be equal can't be mistaken for one another.
"""

from collections.abc import Callable, Iterator, Sequence
from math import prod

import numpy as np
import numpy.typing as npt
import torch

Labels = npt.NDArray[np.int64]
"""One axis per axis of the value, as long as the value's or 1."""

GROUND = 0
"""The label of elements whose gauge is the identity: the network's inputs, outputs and constants."""


def grounded(rank: int) -> Labels:
    """Return the labels of a value that nothing may change."""
    return np.full((1,) * rank, GROUND, dtype=np.int64)


def along(labels: Labels, axis: int, rank: int) -> Labels:
    """Lay a vector of labels along one axis of a value of ``rank`` axes."""
    return labels.reshape(tuple(-1 if i == axis else 1 for i in range(rank)))


def compact(labels: Labels) -> Labels:
    """Shorten every axis to 1 along which labels don't change."""
    for axis in range(labels.ndim):
        if labels.shape[axis] > 1:
            first = labels.take([0], axis)
            if (labels == first).all():
                labels = first
    return labels


def on_axis(labels: Labels, axis: int, size: int) -> Labels | None:
    """Return the labels along one axis as a vector, or None if they change along another one too."""
    if any(length > 1 for i, length in enumerate(labels.shape) if i != axis):
        return None
    vector: Labels = np.broadcast_to(labels.reshape(-1), (size,))
    return vector


def reshaped(labels: Labels, shape: Sequence[int], new: Sequence[int]) -> Labels:
    """Return the labels of a value of ``shape`` after a view or reshape to ``new``.

    Only those axes are written out that are merged or split and carry labels.
    """
    written, target = [], []
    for old_axes, new_axes in _groups(shape, new):
        carries = any(labels.shape[axis] > 1 for axis in old_axes)
        written += [shape[axis] if carries else 1 for axis in old_axes]
        target += [new[axis] if carries else 1 for axis in new_axes]
    return compact(np.broadcast_to(labels, written).reshape(target))


def moved(labels: Labels, shape: Sequence[int], move: Callable[[torch.Tensor], torch.Tensor]) -> Labels:
    """Return labels after an operator that only moves elements, run on the labels written out.

    The batch axis isn't written out where labels don't change along it.
    """
    full = list(shape)
    if labels.ndim and labels.shape[0] == 1 and full:
        full[0] = 1
    return compact(move(written_out(labels, full)).numpy())


def written_out(labels: Labels, shape: Sequence[int]) -> torch.Tensor:
    """Return labels as a tensor of a shape, each element with its own."""
    return torch.from_numpy(np.array(np.broadcast_to(labels, shape)))


def joined(parts: Sequence[Labels], sizes: Sequence[int], axis: int) -> Labels:
    """Return the labels of a concatenation along ``axis`` of values which have ``sizes`` there."""
    others = np.broadcast_shapes(
        *(tuple(1 if i == axis else length for i, length in enumerate(part.shape)) for part in parts)
    )
    full = []
    for part, size in zip(parts, sizes, strict=True):
        shape = list(others)
        shape[axis] = size
        full.append(np.broadcast_to(part, shape))
    return compact(np.concatenate(full, axis))


def _groups(shape: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """The shortest runs of axes, old and new, that hold the same elements."""
    i = j = 0
    while i < len(shape) or j < len(new):
        old_axes, new_axes = list(range(i, min(i + 1, len(shape)))), list(range(j, min(j + 1, len(new))))
        i, j = i + len(old_axes), j + len(new_axes)
        while (old := prod(shape[axis] for axis in old_axes)) != (n := prod(new[axis] for axis in new_axes)):
            if old < n:
                old_axes.append(i)
                i += 1
            else:
                new_axes.append(j)
                j += 1
        yield old_axes, new_axes
