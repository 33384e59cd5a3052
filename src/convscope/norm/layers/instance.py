"""Instance normalisation: statistics per sample and channel, over space."""

import math
from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from convscope.norm.axes import MEMBERS, along, legend
from convscope.norm.engine.evaluation import by_running
from convscope.norm.engine.function import Normalised, normalise
from convscope.norm.engine.running import Averages, WideAverages, move, unbiased
from convscope.norm.layers.checks import (
    check_channels,
    check_floating,
    check_rank,
    check_several_values,
    masked,
)


class InstanceLayer(WideAverages, _InstanceNorm):
    """The forward pass that the classes share."""

    _shapes: ClassVar[Mapping[int, str]]

    def forward(
        self, x: Float[Tensor, "..."], mask: Bool[Tensor, "..."] | None = None
    ) -> Float[Tensor, "..."]:
        """Return the normalised input, in the shape, dtype and layout of ``x``; N may be missing.

        Args:
            x: the input.
            mask: True where a value counts, shaped like ``x`` without channels, or broadcastable to ``x``;
                None to count all. What it leaves out comes out as 0 and gets no gradient.

        Raises:
            ConvscopeError: ``x`` has another rank or number of channels than the layer, isn't floating
                point, or has one value a map; the mask isn't boolean or doesn't fit.
        """
        self._check_input_dim(x)
        if x.dim() == max(self._shapes):
            return self._normalised(x, masked(self, x, mask))
        x, mask = x.unsqueeze(0), None if mask is None else mask.unsqueeze(0)
        return self._normalised(x, masked(self, x, mask)).squeeze(0)

    def _normalised(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if not self.training and self.track_running_stats:
            return by_running(self, x, mask)
        axes = legend(x.dim())
        check_several_values(self, x, math.prod(x.shape[2:]), "channel of a sample")
        dims = MEMBERS["instance"].dims(axes)
        out = normalise(x, along(self.weight, axes), along(self.bias, axes), dims, self.eps, mask)
        if self.training and self.track_running_stats and x.numel():
            self._move_running(out)
        return out.output

    def _move_running(self, batch: Normalised) -> None:
        """Move the running averages towards the samples' mean statistics; without a momentum they stay.

        Samples that a mask leaves fewer than two values of have no variance, and no part.
        """
        several = (batch.count > 1).expand_as(batch.variance)
        samples = several.sum(0).flatten().clamp_min(1)
        variance = unbiased(batch.variance, batch.count.clamp_min(2))
        mean, variance = (
            statistic.where(several, 0).flatten(1).sum(0) / samples for statistic in (batch.mean, variance)
        )
        move(self, Averages(self.running_mean, self.running_var, None), mean, variance)

    def _check_input_dim(self, input: Tensor) -> None:
        check_rank(self, input, self._shapes)
        if self.affine or self.track_running_stats:  # without them nothing here depends on the channels
            check_channels(self, input, self.num_features, axis=input.dim() + 1 - max(self._shapes))
        check_floating(self, input)


class InstanceNorm1d(InstanceLayer, nn.InstanceNorm1d):
    """Instance normalisation of sequences (N, C, L) or (C, L): ``torch.nn.InstanceNorm1d`` in every name.

    See :class:`InstanceNorm2d` for arguments and semantics.

    Example:
        >>> import torch
        >>> InstanceNorm1d(1, eps=0.0)(torch.tensor([[[1.0, 3.0]]])).tolist()
        [[[-1.0, 1.0]]]
    """

    _shapes: ClassVar = {2: "(C, L)", 3: "(N, C, L)"}


class InstanceNorm2d(InstanceLayer, nn.InstanceNorm2d):
    """Instance normalisation of maps (N, C, H, W) or (C, H, W): ``torch.nn.InstanceNorm2d`` in every name.

    Every map of every sample is normalised by itself: x̂ = (x − μ) / √(σ² + ε), y = γ x̂ + β.

    Args:
        num_features: C.
        eps: ε, 1e-5.
        momentum: weight of the new value in the running averages, 0.1; None leaves them unmoved.
        affine: whether to learn γ (``weight``) and β (``bias``) per channel; not by default.
        track_running_stats: whether to keep running averages of the samples' statistics and use them, as
            batch norm does, at test time; not by default.
        device: where parameters and buffers live.
        dtype: their dtype.

    Source:
        Ulyanov, Vedaldi and Lempitsky, "Instance Normalization", arXiv 1607.08022; PyTorch's conventions.

    Example:
        >>> import torch
        >>> InstanceNorm2d(1, eps=0.0)(torch.tensor([[[[1.0, 3.0]]], [[[4.0, 8.0]]]])).flatten().tolist()
        [-1.0, 1.0, -1.0, 1.0]
    """

    _shapes: ClassVar = {3: "(C, H, W)", 4: "(N, C, H, W)"}


class InstanceNorm3d(InstanceLayer, nn.InstanceNorm3d):
    """Instance normalisation of volumes (N, C, D, H, W) or (C, D, H, W): ``torch.nn.InstanceNorm3d``.

    See :class:`InstanceNorm2d` for arguments and semantics.

    Example:
        >>> import torch
        >>> InstanceNorm3d(2)(torch.randn(2, 2, 3, 4, 5)).shape
        torch.Size([2, 2, 3, 4, 5])
    """

    _shapes: ClassVar = {4: "(C, D, H, W)", 5: "(N, C, D, H, W)"}
