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
        constants: for labels of constants that their readers take in, whatever stands there now, what they
            were; NaN for all others. None: for all.
    """

    scales: Tensor
    shifts: Tensor
    constants: Tensor | None = None

    def of(self, labels: Labels) -> tuple[Tensor, Tensor]:
        """Return a and b of labels, in their shape."""
        index = torch.tensor(labels)
        return self.scales[index], self.shifts[index]

    def back(self, labels: Labels) -> tuple[Tensor, Tensor]:
        """Return c and d of labels, with which v = c · v' + d; c is 0 for constants."""
        scale, shift = self.of(labels)
        is_constant, constant = self.is_constant(labels), self._constant(labels)
        return torch.where(is_constant, 0.0, 1 / scale), torch.where(is_constant, constant, -shift / scale)

    def is_constant(self, labels: Labels) -> Tensor:
        """Return which labels are of constants, in their shape; these have no gauge."""
        return ~self._constant(labels).isnan()

    def _constant(self, labels: Labels) -> Tensor:
        index = torch.tensor(labels)
        return torch.full(index.shape, torch.nan) if self.constants is None else self.constants[index]

    def compact(self, labels: Labels) -> tuple[Tensor, Tensor]:
        """Return a and b of labels, of length 1 along axes on which they don't change; NaN for constants."""
        known = torch.where(self.is_constant(labels), torch.nan, 1.0)
        scale, shift = (_shortened(numbers * known) for numbers in self.of(labels))
        return scale, shift


def _shortened(numbers: Tensor) -> Tensor:
    for axis in range(numbers.dim()):
        first = numbers.narrow(axis, 0, 1)
        if numbers.shape[axis] > 1 and bool((numbers == first).all()):
            numbers = first
    return numbers
