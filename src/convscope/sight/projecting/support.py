"""Signals on the way back to the image without the zeros that surround them.

A projection begins at one position of a map, and spreads by a kernel's width at each convolution: most of
what a backward pass multiplies are zeros. The transposed convolution of a signal is that of the rectangle
which holds all that isn't zero, put back at its place; nothing else changes. Samples of a batch have
rectangles of one size, each at its own place; those without any signal are left out.

Limits: two-dimensional convolutions on the CPU (elsewhere, finding the rectangles would wait for the device).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from convscope.probe import Visit

FEW_CHANNELS = 4  # of a stem: one matrix product takes less than half the time of PyTorch's own operator


@dataclass(frozen=True)
class Support:
    """Where a batch of signals isn't zero.

    Attributes:
        samples: those with any signal.
        corners: (y, x) of each one's rectangle.
        size: (height, width) of the rectangles.
    """

    samples: list[int]
    corners: list[tuple[int, int]]
    size: tuple[int, int]

    @classmethod
    def of(cls, signal: Tensor) -> "Support":
        """Return the smallest rectangles of one size that hold the signals (n, c, h, w).

        Example:
            >>> signal = torch.zeros(3, 1, 8, 9)
            >>> signal[0, 0, 4, 6:8] = signal[2, 0, 7, 8] = -1
            >>> Support.of(signal)
            Support(samples=[0, 2], corners=[(4, 6), (7, 7)], size=(1, 2))
        """
        places = (signal.abs().sum(1) != 0).numpy()
        samples = np.flatnonzero(places.any((1, 2)))
        if not len(samples):
            return cls([], [], (0, 0))
        corners, size = [], []
        for axis in (2, 1):
            along: NDArray[np.bool_] = np.any(places[samples], axis=axis)
            first, length = along.argmax(1), along.shape[1]
            extent = int((length - along[:, ::-1].argmax(1) - first).max())
            corners.append(np.minimum(first, length - extent).tolist())
            size.append(extent)
        return cls(samples.tolist(), list(zip(*corners, strict=True)), (size[0], size[1]))

    def cut(self, signal: Tensor) -> Tensor:
        """Return the rectangles as a batch."""
        height, width = self.size
        corners = zip(self.samples, self.corners, strict=True)
        return torch.stack([signal[i, :, y : y + height, x : x + width] for i, (y, x) in corners])


def convolution_backward(visit: Visit) -> Any:
    """Run the backward operator of a convolution on its signal's support alone; a rule for the probe."""
    signal, given, weight, _, stride, padding, dilation, transposed, _, groups, wanted = visit.args
    if transposed or list(wanted) != [True, False, False] or signal.dim() != 4 or not signal.is_cpu:
        return visit.run()
    found = Support.of(signal)
    if not found.samples:
        return torch.zeros_like(given), None, None
    is_whole = (len(found.samples), *found.size) == (len(signal), *signal.shape[2:])
    if is_whole and weight.shape[1] > FEW_CHANNELS:
        return visit.run()
    part = signal if is_whole else found.cut(signal)
    sizes = [
        (length - 1) * s + d * (kernel - 1) + 1
        for length, s, d, kernel in zip(found.size, stride, dilation, weight.shape[2:])
    ]
    if groups == 1 and weight.shape[1] <= FEW_CHANNELS:
        columns = weight.flatten(1).t() @ part.flatten(2)
        regions = F.fold(columns, (sizes[0], sizes[1]), weight.shape[2:], dilation=dilation, stride=stride)
    else:
        regions = torch.ops.aten.convolution_backward(
            part, given.new_empty(len(part), given.shape[1], *sizes), weight, None,
            stride, [0, 0], dilation, False, [0, 0], groups, [True, False, False],
        )[0]  # fmt: skip
    result = torch.zeros_like(given)
    for sample, corner, region in zip(found.samples, found.corners, regions, strict=True):
        start = [first * s - p for first, s, p in zip(corner, stride, padding)]
        _place(region, start, result[sample])
    return result, None, None


def _place(region: Tensor, start: list[int], whole: Tensor) -> None:
    """Write a region (c, h, w) at its place; what lies in the padding is cut off."""
    (top, left), (height, width) = start, whole.shape[1:]
    rows = slice(max(top, 0), min(top + region.shape[1], height))
    columns = slice(max(left, 0), min(left + region.shape[2], width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return  # it sees nothing but padding
    kept = region[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    whole[:, rows, columns] = kept
