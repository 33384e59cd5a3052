"""Batch renormalisation: batch norm whose training outputs are those of test time, for small or odd batches.

Where a batch is small, or its samples aren't drawn independently, its statistics are far from those of the
data, and a network trained with the ones is tested with the others. Here the running averages μ, σ already
normalise in training, as far as r and d aren't clipped:

    r = clip(σ_B / σ, 1/r_max, r_max),   d = clip((μ_B − μ) / σ, −d_max, d_max),   y = γ (x̂ r + d) + β

r and d are constants to the gradient, which goes through μ_B and σ_B as in batch norm: that keeps the weights
before the layer from growing without end, as they do where running averages alone normalise. The averages
are those from before this batch, which moves them as in batch norm. r_max = 1 and d_max = 0 is batch norm.

ε is in both σ_B = √(v_B + ε) and σ = √(v + ε). v_B is the biased variance, by which the batch is normalised;
v is PyTorch's running variance, an average of unbiased variances, where the paper averages σ_B itself. So
unclipped outputs equal test time's exactly, and r tends to √((m − 1)/m), not 1, with m values a channel.
"""

import math
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.norm.engine.recomputing import as_at_first
from convscope.norm.engine.statistics import Moments
from convscope.norm.layers.batch import BatchLayer
from convscope.norm.naming import named


class Relaxation(NamedTuple):
    """From which training step to which the bounds r_max and d_max open; the paper's by default.

    Until ``start`` it is batch norm (r_max = 1, d_max = 0); then both grow linearly. Steps are what
    ``num_batches_tracked`` counts, so a checkpoint goes on where it was, and a trained one has opened.

    Attributes:
        start: the last step of plain batch norm.
        r_max_at: the step at which r_max is reached.
        d_max_at: the step at which d_max is reached.

    Source:
        Ioffe, "Batch Renormalization", arXiv 1702.03275, section 4.1, which doesn't say how the bounds grow
        in between.

    Example:
        >>> [bound.item() for bound in Relaxation().bounds(3.0, 5.0, torch.tensor(15_000))]
        [1.5714285714285714, 2.5]
    """

    start: int = 5_000
    r_max_at: int = 40_000
    d_max_at: int = 25_000

    def bounds(self, r_max: float, d_max: float, num_batches: Int[Tensor, ""]) -> tuple[Tensor, Tensor]:
        """Return r_max and d_max after some batches, in float64."""
        r_open, d_open = (
            ((num_batches.double() - self.start) / max(end - self.start, 1)).clamp(0, 1)
            for end in (self.r_max_at, self.d_max_at)
        )
        return 1 + (r_max - 1) * r_open, d_max * d_open


PUBLISHED = Relaxation()


class RenormLayer(BatchLayer):
    """What the classes share: r and d, as part of γ and β."""

    r_max: float = 3.0
    d_max: float = 5.0
    relaxation: Relaxation | None = PUBLISHED

    def __init__(
        self,
        num_features: int,
        *,
        r_max: float = 3.0,
        d_max: float = 5.0,
        relaxation: Relaxation | None = PUBLISHED,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_features, **kwargs)
        self.r_max, self.d_max, self.relaxation = r_max, d_max, relaxation
        self._check_settings()

    def extra_repr(self) -> str:
        """Return the settings for the module's printed form."""
        opening = "" if self.relaxation is None else f" from step {self.relaxation.start}"
        return f"{super().extra_repr()}, r_max={self.r_max:g}, d_max={self.d_max:g}{opening}"

    def _by_batch(self, x: Tensor, mask: Tensor | None) -> Tensor:
        self._check_settings()  # again: the class of a layer can change, and its attributes
        return super()._by_batch(x, mask)

    def _affine(self, found: Moments) -> tuple[Tensor | None, Tensor | None]:
        r, d = as_at_first(self, found, self._correction(found))
        if self.weight is None:
            return r, d
        shift = self.weight * d
        return self.weight * r, shift if self.bias is None else shift + self.bias

    @torch.no_grad()
    def _correction(self, found: Moments) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
        """Return r and d, by the running averages as they are now."""
        assert self.running_mean is not None
        assert self.running_var is not None
        mean, variance = (
            average.to(found.shift.dtype).view(found.shift.shape)
            for average in (self.running_mean, self.running_var)
        )
        r_max, d_max = self._bounds(found.shift)
        deviation = (variance + self.eps).sqrt()
        r = (found.variance + self.eps).sqrt() / deviation
        d = ((found.shift - mean) + found.residual) / deviation
        return r.clamp(r_max.reciprocal(), r_max).flatten(), d.clamp(-d_max, d_max).flatten()

    def _bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        r_max, d_max = (like.new_full((), bound) for bound in (self.r_max, self.d_max))
        if self.relaxation is None or self.num_batches_tracked is None:
            return r_max, d_max
        r_max, d_max = self.relaxation.bounds(self.r_max, self.d_max, self.num_batches_tracked)
        return r_max.to(like.dtype), d_max.to(like.dtype)

    def _check_settings(self) -> None:
        if self.running_mean is None:
            raise ConvscopeError(
                f"{named(self)} without running statistics",
                "running averages to renormalise with",
                "build it with track_running_stats=True, or use batch normalisation",
            )
        if not (1 <= self.r_max < math.inf and 0 <= self.d_max < math.inf):
            raise ConvscopeError(
                f"{named(self)} with r_max={self.r_max:g} and d_max={self.d_max:g}",
                "finite bounds, r_max at least 1 and d_max at least 0",
                "choose r_max=1 and d_max=0 for plain batch normalisation, 3 and 5 as published",
            )
        if not isinstance(self.relaxation, Relaxation | None):
            raise ConvscopeError(
                f"{named(self)} with relaxation={self.relaxation!r}",
                "convscope.norm.Relaxation(start, r_max_at, d_max_at), or None to open the bounds at once",
                "give the three numbers of steps",
            )


class BatchRenorm1d(RenormLayer, nn.BatchNorm1d):
    """Batch renormalisation of features (N, C) or sequences (N, C, L).

    See :class:`BatchRenorm2d` for arguments and semantics.

    Example:
        >>> BatchRenorm1d(1)(torch.tensor([[1.0], [3.0]])).flatten().tolist()  # at first, batch norm
        [-0.9999949932098389, 0.9999949932098389]
    """

    _shapes: ClassVar = {2: "(N, C)", 3: "(N, C, L)"}


class BatchRenorm2d(RenormLayer, nn.BatchNorm2d):
    """Batch renormalisation of maps (N, C, H, W): names and state dict of ``torch.nn.BatchNorm2d``.

    Args:
        num_features: C.
        r_max: the most by which r may differ from 1, as a factor, at least 1.
        d_max: the most by which d may differ from 0, at least 0.
        relaxation: when the bounds open; None to have them open from the first step, as for a trained network
            whose ``num_batches_tracked`` is 0.
        **kwargs: by name, ``eps``, ``momentum``, ``affine``, ``track_running_stats``, ``device``,
            ``dtype`` and ``warm_start`` as in :class:`convscope.norm.BatchNorm2d`. The paper's ``momentum``
            for batches of 32 is 0.01.

    At test time it is batch norm. A forward pass that activation checkpointing runs again during backward
    uses the r and d of the first run, although the averages have moved since.

    Raises:
        ConvscopeError: no running statistics, or bounds out of range.

    Source:
        Ioffe, "Batch Renormalization", arXiv 1702.03275, algorithm 1.

    Not covered: statistics of several processes; what :class:`convscope.norm.BatchNorm2d` doesn't cover.

    Example:
        >>> layer = BatchRenorm2d(3, r_max=10.0, d_max=10.0, relaxation=None)
        >>> x = torch.randn(2, 3, 4, 4)
        >>> before = nn.BatchNorm2d(3).eval()(x)
        >>> torch.allclose(layer(x), before, atol=1e-6)  # not clipped: what test time computes
        True
    """

    _shapes: ClassVar = {4: "(N, C, H, W)"}


class BatchRenorm3d(RenormLayer, nn.BatchNorm3d):
    """Batch renormalisation of volumes (N, C, D, H, W).

    See :class:`BatchRenorm2d` for arguments and semantics.

    Example:
        >>> BatchRenorm3d(2)(torch.randn(2, 2, 3, 4, 5)).shape
        torch.Size([2, 2, 3, 4, 5])
    """

    _shapes: ClassVar = {5: "(N, C, D, H, W)"}
