"""A layer's inputs over all data: count, mean and variance per channel, and how far they can be trusted.

All is float64 and pooled by true counts, so that a batch of 2 never weighs as much as one of 1,000. Samples
are independent draws, positions within one aren't; so standard errors come from the spread between samples:
of their means, and of their mean squared distances from a fixed centre.

Axis letters: N samples, C channels, S positions.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from convscope.norm.engine.merging import Summary, merged, pooled
from convscope.norm.engine.statistics import summary
from convscope.norm.recalibration.result import Residual

# Values that are widened to float64 at a time: cheap on a CPU while they stay in its cache.
_CHUNK_VALUES, _CHUNK_VALUES_ELSEWHERE = 2**20, 2**26
_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True, eq=False)
class Pooled:
    """Statistics of a layer's inputs, per channel (C,) in float64.

    Attributes:
        num_calls: calls of the layer.
        values: of all values.
        means: of samples' means.
        squares: of samples' mean squared distances from a centre.
    """

    num_calls: int
    values: Summary
    means: Summary
    squares: Summary

    @property
    def mean(self) -> Tensor:
        """The mean of all values."""
        return self.values.mean

    @property
    def variance(self) -> Tensor:
        """The unbiased variance of all values; 0 where all are the same, NaN where there is one."""
        return self.values.unbiased_variance

    @property
    def is_finite(self) -> bool:
        """Whether every channel has a mean and a variance."""
        return bool(self.values.mean.isfinite().all() and self.values.squares.isfinite().all())

    def on_cpu(self) -> "Pooled":
        """Return the same in the CPU's memory."""
        parts = (Summary(*(t.cpu() for t in part)) for part in (self.values, self.means, self.squares))
        return Pooled(self.num_calls, *parts)


class Pool:
    """Gathers a :class:`Pooled`, call by call.

    Example:
        >>> pool = Pool()
        >>> _ = pool.add(torch.tensor([[1.0], [3.0]]))
        >>> _ = pool.add(torch.tensor([[8.0]]))
        >>> pool.found.mean.item(), pool.found.variance.item(), pool.found.num_calls
        (4.0, 13.0, 2)
    """

    def __init__(self) -> None:
        self.found: Pooled | None = None
        self._centre: Tensor | None = None

    def add(self, x: Tensor, mask: Tensor | None = None) -> Summary:
        """Take in one call's input (N, C, *) and return its own statistics.

        Args:
            x: the input.
            mask: True where a value counts, of the rank of ``x`` and broadcastable to it; None to count all.
        """
        samples = _per_sample(x, mask)
        values = pooled(samples)
        if self._centre is None:
            self._centre = values.mean
        squares = samples.variance + (samples.mean - self._centre).square()
        counted = (samples.count > 0).double()
        each = (Summary(counted, part, torch.zeros_like(part)) for part in (samples.mean, squares))
        found = Pooled(1, values, *map(pooled, each))
        self.found = found if self.found is None else merged_pools([self.found, found])
        return values


def merged_pools(parts: Iterable[Pooled]) -> Pooled:
    """Return the statistics of several pools' inputs together; at least one."""
    parts = list(parts)
    return Pooled(
        sum(part.num_calls for part in parts),
        *(merged([getattr(part, name) for part in parts]) for name in ("values", "means", "squares")),
    )


def residual(found: Pooled, running_mean: Tensor, running_variance: Tensor, eps: float) -> Residual:
    """Return how far running statistics are from those of a layer's inputs; see :class:`Residual`.

    Args:
        found: statistics of the inputs.
        running_mean: the layer's, (C,).
        running_variance: likewise.
        eps: the layer's ε.
    """
    mean_C, variance_C = running_mean.double().to(found.mean.device), running_variance.double()
    variance_C = variance_C.to(found.mean.device)
    scale_C = (variance_C + eps).clamp_min(_TINY)
    spread_C = (found.variance + eps).clamp_min(_TINY)
    off_C = (found.mean - mean_C).abs() / scale_C.sqrt()
    ratio_C = (spread_C / scale_C).log().abs()
    mean, mean_error = _worst(off_C, _error(found.means) / scale_C.sqrt())
    variance, variance_error = _worst(ratio_C, _error(found.squares) / spread_C)
    return Residual(mean, mean_error, variance, variance_error)


def _error(samples: Summary) -> Tensor:
    """The standard error of a mean over samples."""
    return (samples.unbiased_variance / samples.count).sqrt()


def _worst(size_C: Tensor, error_C: Tensor) -> tuple[float, float | None]:
    """The largest of some numbers, a NaN counting as infinite, and its standard error."""
    size_C = size_C.nan_to_num(nan=math.inf, posinf=math.inf)
    place = int(size_C.argmax())
    error = float(error_C[place])
    return float(size_C[place]), error if math.isfinite(error) else None


def _per_sample(x: Tensor, mask: Tensor | None) -> Summary:
    """Count, mean and squares of every sample's channels, (N, C); few samples at a time."""
    x_NCS = x.detach().flatten(2) if x.dim() > 2 else x.detach().unsqueeze(2)
    mask_NCS = None if mask is None else mask.expand(x.shape).reshape(x_NCS.shape)
    most = _CHUNK_VALUES if x.device.type == "cpu" else _CHUNK_VALUES_ELSEWHERE
    num_samples = max(1, most // x_NCS[0].numel())
    chunks = [slice(start, start + num_samples) for start in range(0, len(x), num_samples)]
    parts = [
        summary(x_NCS[chunk].double(), (2,), None if mask_NCS is None else mask_NCS[chunk])
        for chunk in chunks
    ]
    return Summary(*(torch.cat(pieces) for pieces in zip(*parts, strict=True)))
