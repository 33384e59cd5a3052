"""The activations that batch norm's kernels apply on the way: piecewise linear ones."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Piecewise(NamedTuple):
    """v = u where u > 0 and ``slope`` u elsewhere, then kept within ``low`` … ``high``; NaN stays NaN.

    The derivative is 0 where v ≤ low or v ≥ high, and ``slope`` where u ≤ 0, as PyTorch has it.

    Attributes:
        slope: for negative numbers; 1 for a straight line.
        low: the least value.
        high: the greatest one.

    Example:
        >>> Piecewise(slope=0.5, high=2.0)(torch.tensor([-3.0, 1.0, 4.0])).tolist()
        [-1.5, 1.0, 2.0]
    """

    slope: float = 1.0
    low: float = -math.inf
    high: float = math.inf

    def __call__(self, u: Tensor) -> Tensor:
        """Return the activation of a tensor, by PyTorch's operators."""
        bent = u if self.slope == 1 else nn.functional.leaky_relu(u, self.slope)
        if (self.low, self.high) == (0, math.inf):
            return bent.relu()
        if (self.low, self.high) == (-math.inf, math.inf):
            return bent
        return nn.functional.hardtanh(bent, self.low, self.high)

    def derivative(self, u: Tensor) -> Tensor:
        """Return the derivative at a tensor's values, in its dtype."""
        v = torch.where(u <= 0, self.slope * u, u)
        factor = torch.where(u <= 0, self.slope, torch.ones_like(u))
        return factor.masked_fill((v <= self.low) | (v >= self.high), 0)


IDENTITY = Piecewise()


def piecewise(activation: nn.Module) -> Piecewise | None:
    """Return what a module computes, if it is one of these activations.

    Example:
        >>> piecewise(nn.ReLU6()), piecewise(nn.SiLU())
        (Piecewise(slope=1.0, low=0.0, high=6.0), None)
    """
    kind = type(activation)
    if kind is nn.Identity:
        return IDENTITY
    if kind is nn.ReLU:
        return Piecewise(low=0.0)
    if kind in (nn.ReLU6, nn.Hardtanh):
        return Piecewise(low=_number(activation.min_val), high=_number(activation.max_val))
    if kind is nn.LeakyReLU:
        return Piecewise(slope=_number(activation.negative_slope))
    return None


def _number(setting: Any) -> float:
    return float(setting)
