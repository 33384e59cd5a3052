"""Means and distances that are kept while images go by, in memory that doesn't grow with their number."""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.core.student import student
from convscope.sight.transforming.result import Mean

SIGMAS = 1.959964
"""95 % of a normal distribution lie within."""


@dataclass
class RunningMean:
    """Mean and spread of numbers, by Welford's recurrence."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: Tensor) -> None:
        """Take in numbers; those that aren't finite are left out: they are unknown."""
        for value in values.double().cpu().tolist():
            if math.isfinite(value):
                self.count += 1
                away = value - self.mean
                self.mean += away / self.count
                self.squares += away * (value - self.mean)

    def result(self) -> Mean:
        """Return the mean with its interval.

        Example:
            >>> mean = RunningMean()
            >>> mean.add(torch.tensor([1.0, 3.0]))
            >>> mean.result().value
            2.0
        """
        if self.count < 2:
            return Mean(self.mean if self.count else None, None, None, self.count)
        error = math.sqrt(self.squares / (self.count - 1) / self.count)
        reach = student(SIGMAS, self.count - 1) * error
        return Mean(self.mean, self.mean - reach, self.mean + reach, self.count)


@dataclass
class Between:
    """Squared distances between images, by unit, from sums: Σ over pairs ‖a − b‖² = n Σ‖a‖² − ‖Σ a‖².

    The first image is taken away from all, so that the difference of sums is exact enough in float64.
    """

    count: int = 0
    first: Tensor | None = None
    total: Tensor | None = None
    squares: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))

    def add(self, features: Float[Tensor, "n u p"]) -> None:
        """Take in images' features."""
        own = features.double()
        if self.first is None or self.total is None:
            self.first, self.total = own[0].clone(), torch.zeros_like(own[0])
            self.squares = own.new_zeros(own.shape[1])
        own = own - self.first
        self.count += len(own)
        self.total += own.sum(0)
        self.squares += own.square().sum((0, 2))

    def mean_square(self) -> Float[Tensor, " u"] | None:
        """Return each unit's mean squared distance over all pairs; None for fewer than two images."""
        if self.count < 2 or self.total is None:
            return None
        pairs = self.count * (self.count - 1) / 2
        sums = self.count * self.squares - self.total.square().sum(1)
        # What cancellation leaves of a unit that is the same for all images.
        rounding = 1e-12 * self.count * self.squares
        return torch.where(sums > rounding, sums, torch.zeros_like(sums)).cpu() / pairs
