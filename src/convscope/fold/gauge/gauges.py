"""Gauges that were found: the scale and the shift of every label."""

from dataclasses import dataclass

import torch
from torch import Tensor

from convscope.fold.gauge.labels import Labels


@dataclass(frozen=True)
class Gauges:
    """How the folded network's values differ from the network's: a · v + b.

    Attributes:
        scales, shifts: a and b of every label, float64.
    """

    scales: Tensor
    shifts: Tensor

    def of(self, labels: Labels) -> tuple[Tensor, Tensor]:
        """Return a and b of labels, in their shape."""
        index = torch.tensor(labels)
        return self.scales[index], self.shifts[index]

    def compact(self, labels: Labels) -> tuple[Tensor, Tensor]:
        """Return a and b of labels, of length 1 along the axes on which they don't change."""
        scale, shift = (_shortened(numbers) for numbers in self.of(labels))
        return scale, shift


def _shortened(numbers: Tensor) -> Tensor:
    for axis in range(numbers.dim()):
        first = numbers.narrow(axis, 0, 1)
        if numbers.shape[axis] > 1 and bool((numbers == first).all()):
            numbers = first
    return numbers
