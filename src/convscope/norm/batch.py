"""Batch normalisation: statistics per channel, over the batch and space.

In training the batch is normalised by its own statistics, which also move the running averages; at test time
the running averages are constants, each sample is mapped on its own by y = γ (x − μ) / √(v + ε) + β, and the
layer can be folded into the convolution before it.

The classes are PyTorch's with another engine: constructor, attributes, state dict and conventions are
inherited, so any checkpoint loads, and code that looks for ``torch.nn.BatchNorm2d`` finds these. At test time
they run PyTorch's own operator, for tools that look for it in recordings.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from convscope.norm.axes import MEMBERS, along, legend
from convscope.norm.checks import check_channels, check_floating, check_rank, check_several_values
from convscope.norm.function import Normalised, normalise
from convscope.norm.running import new_value_weight, unbiased, update_running


class _Batch(_BatchNorm):
    """The forward pass that the three classes share."""

    _shapes: ClassVar[Mapping[int, str]]

    def forward(self, x: Float[Tensor, "n c *s"]) -> Float[Tensor, "n c *s"]:
        """Return the normalised batch, in the shape, dtype and layout of ``x``.

        Raises:
            ConvscopeError: ``x`` has another rank or number of channels than the layer, isn't floating
                point, or leaves one value per channel to take statistics of.
        """
        self._check_input_dim(x)
        by_running = not self.training and self.running_mean is not None
        if by_running or x.numel() == 0:  # an empty batch has no statistics, and moves none
            return self._torch_operator(x, by_running)
        num_values = x.numel() // x.shape[1]
        check_several_values(type(self).__name__, x, num_values, "channel")
        axes = legend(x.dim())
        out = normalise(
            x, along(self.weight, axes), along(self.bias, axes), MEMBERS["batch"].dims(axes), self.eps
        )
        if self.training and self.track_running_stats:
            self._move_running(out, num_values)
        return out.output

    def _torch_operator(self, x: Tensor, by_running: bool) -> Tensor:
        mean, var = (self.running_mean, self.running_var) if by_running else (None, None)
        return F.batch_norm(x, mean, var, self.weight, self.bias, not by_running, 0.0, self.eps)

    def _move_running(self, batch: Normalised, num_values: int) -> None:
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        weight = new_value_weight(self.momentum, self.num_batches_tracked)
        if self.running_mean is not None:
            update_running(self.running_mean, batch.mean.flatten(), weight)
        if self.running_var is not None:
            update_running(self.running_var, unbiased(batch.variance.flatten(), num_values), weight)

    def _check_input_dim(self, input: Tensor) -> None:
        layer = type(self).__name__
        check_rank(layer, input, self._shapes)
        check_channels(layer, input, self.num_features)
        check_floating(layer, input)


class BatchNorm1d(_Batch, nn.BatchNorm1d):
    """Batch normalisation of features (N, C) or sequences (N, C, L): ``torch.nn.BatchNorm1d`` in every name.

    See :class:`BatchNorm2d` for arguments and semantics.

    Example:
        >>> import torch
        >>> BatchNorm1d(1)(torch.tensor([[1.0], [3.0]])).flatten().tolist()
        [-0.9999949932098389, 0.9999949932098389]
    """

    _shapes: ClassVar = {2: "(N, C)", 3: "(N, C, L)"}


class BatchNorm2d(_Batch, nn.BatchNorm2d):
    """Batch normalisation of maps (N, C, H, W): ``torch.nn.BatchNorm2d`` in every name and convention.

    Per channel, over the m = N·H·W values of a batch: x̂ = (x − μ) / √(σ² + ε), y = γ x̂ + β, with the biased
    variance σ². The running variance stores the unbiased one.

    Args:
        num_features: C.
        eps: ε, 1e-5.
        momentum: weight of the new value in the running averages, 0.1; None for the average over all
            batches so far.
        affine: whether to learn γ (``weight``, from 1) and β (``bias``, from 0).
        track_running_stats: whether to keep running averages; without them test time uses the batch's
            own statistics.
        device: where parameters and buffers live.
        dtype: their dtype.

    Source:
        Ioffe and Szegedy, "Batch Normalization", arXiv 1502.03167; PyTorch's documented conventions.

    Not covered: ``torch.jit.script``, forward-mode differentiation.

    Example:
        >>> import torch
        >>> layer = BatchNorm2d(3)
        >>> _ = layer.load_state_dict(nn.BatchNorm2d(3).state_dict())
        >>> layer(torch.randn(8, 3, 5, 4)).std(dim=(0, 2, 3), correction=0).round(decimals=3).tolist()
        [1.0, 1.0, 1.0]
    """

    _shapes: ClassVar = {4: "(N, C, H, W)"}


class BatchNorm3d(_Batch, nn.BatchNorm3d):
    """Batch normalisation of volumes (N, C, D, H, W): ``torch.nn.BatchNorm3d`` in every name.

    See :class:`BatchNorm2d` for arguments and semantics.

    Example:
        >>> import torch
        >>> BatchNorm3d(2)(torch.randn(2, 2, 3, 4, 5)).shape
        torch.Size([2, 2, 3, 4, 5])
    """

    _shapes: ClassVar = {5: "(N, C, D, H, W)"}
