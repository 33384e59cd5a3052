"""Instance normalisation: statistics per sample and channel, over space."""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from convscope.norm.axes import MEMBERS, along, legend
from convscope.norm.checks import check_channels, check_floating, check_rank, check_several_values
from convscope.norm.function import Normalised, normalise
from convscope.norm.running import unbiased, update_running


class _Instance(_InstanceNorm):
    """The forward pass that the classes share."""

    _shapes: ClassVar[Mapping[int, str]]

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the normalised input, in the shape, dtype and layout of ``x``; N may be missing.

        Raises:
            ConvscopeError: ``x`` has another rank or number of channels than the layer, isn't floating
                point, or has one value a map.
        """
        self._check_input_dim(x)
        if x.dim() == max(self._shapes):
            return self._normalised(x)
        return self._normalised(x.unsqueeze(0)).squeeze(0)

    def _normalised(self, x: Tensor) -> Tensor:
        if not self.training and self.track_running_stats:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        axes = legend(x.dim())
        num_values = math.prod(x.shape[2:])
        check_several_values(type(self).__name__, x, num_values, "channel of a sample")
        out = normalise(
            x, along(self.weight, axes), along(self.bias, axes), MEMBERS["instance"].dims(axes), self.eps
        )
        if self.training and self.track_running_stats and x.numel():
            self._move_running(out, num_values)
        return out.output

    def _move_running(self, batch: Normalised, num_values: int) -> None:
        """Move the running averages towards the samples' mean statistics; without a momentum they stay."""
        weight = 0.0 if self.momentum is None else self.momentum
        mean, variance = (statistic.flatten(1).mean(0) for statistic in (batch.mean, batch.variance))
        if self.running_mean is not None:
            update_running(self.running_mean, mean, weight)
        if self.running_var is not None:
            update_running(self.running_var, unbiased(variance, num_values), weight)

    def _check_input_dim(self, input: Tensor) -> None:
        layer = type(self).__name__
        check_rank(layer, input, self._shapes)
        if self.affine or self.track_running_stats:  # without them nothing here depends on the channels
            check_channels(layer, input, self.num_features, axis=input.dim() + 1 - max(self._shapes))
        check_floating(layer, input)


class InstanceNorm1d(_Instance, nn.InstanceNorm1d):
    """Instance normalisation of sequences (N, C, L) or (C, L): ``torch.nn.InstanceNorm1d`` in every name.

    See :class:`InstanceNorm2d` for arguments and semantics.

    Example:
        >>> import torch
        >>> InstanceNorm1d(1, eps=0.0)(torch.tensor([[[1.0, 3.0]]])).tolist()
        [[[-1.0, 1.0]]]
    """

    _shapes: ClassVar = {2: "(C, L)", 3: "(N, C, L)"}


class InstanceNorm2d(_Instance, nn.InstanceNorm2d):
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


class InstanceNorm3d(_Instance, nn.InstanceNorm3d):
    """Instance normalisation of volumes (N, C, D, H, W) or (C, D, H, W): ``torch.nn.InstanceNorm3d``.

    See :class:`InstanceNorm2d` for arguments and semantics.

    Example:
        >>> import torch
        >>> InstanceNorm3d(2)(torch.randn(2, 2, 3, 4, 5)).shape
        torch.Size([2, 2, 3, 4, 5])
    """

    _shapes: ClassVar = {4: "(C, D, H, W)", 5: "(N, C, D, H, W)"}
