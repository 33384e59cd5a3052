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
