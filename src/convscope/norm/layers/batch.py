"""Batch normalisation: statistics per channel, over the batch and space.

In training the batch is normalised by its own statistics, which also move the running averages; at test time
the running averages are constants, each sample is mapped on its own by y = γ (x − μ) / √(v + ε) + β, and the
layer can be folded into the convolution before it.

The classes are PyTorch's with another engine: constructor, attributes, state dict and conventions are
inherited, so any checkpoint loads, and code that looks for ``torch.nn.BatchNorm2d`` finds these. At test time
they run PyTorch's own operator, for tools that look for it in recordings. A second argument of ``forward``,
a mask, keeps padding out of the statistics.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from convscope.norm.axes import MEMBERS, along, legend
from convscope.norm.engine.evaluation import by_running, of_nothing
from convscope.norm.engine.function import Exchange, normalise_by, statistics
from convscope.norm.engine.running import Averages, WideAverages, move, unbiased
from convscope.norm.engine.statistics import Moments
from convscope.norm.fast.activation import IDENTITY, Piecewise
from convscope.norm.fast.choosing import takes
from convscope.norm.fast.function import batch_norm
from convscope.norm.layers.checks import (
    check_channels,
    check_counts,
    check_floating,
    check_rank,
    check_several_values,
    masked,
)


class BatchLayer(WideAverages, _BatchNorm):
    """What the layers that normalise by the batch have in common.

    They differ in whose values are pooled (:meth:`_exchange`), in how the batch is divided
    (:meth:`_by_batch`), and in what γ and β are applied (:meth:`_affine`).
    """

    _shapes: ClassVar[Mapping[int, str]]
    warm_start: bool = False

    def __init__(self, num_features: int, *args: Any, warm_start: bool = False, **kwargs: Any) -> None:
        super().__init__(num_features, *args, **kwargs)
        if warm_start:
            self.warm_start = True

    def forward(
        self, x: Float[Tensor, "n c *s"], mask: Bool[Tensor, "..."] | None = None
    ) -> Float[Tensor, "n c *s"]:
        """Return the normalised batch, in the shape, dtype and layout of ``x``.

        Args:
            x: the batch.
            mask: True where a value counts, shape (N, …) without channels or (N, 1, …) or (N, C, …), with
                sizes of 1 for all; None to count all. What it leaves out, padding, has no part in the
                statistics, comes out as 0, gets no gradient, and may hold anything.

        Raises:
            ConvscopeError: ``x`` has another rank or number of channels than the layer, isn't floating
                point, or leaves one value per channel to take statistics of; the mask isn't boolean, doesn't
                fit, or leaves nothing.
        """
        self._check_input_dim(x)
        mask = masked(self, x, mask)
        if self._by_running():
            return by_running(self, x, mask)
        if x.numel() == 0:  # an empty batch has no statistics, and moves none
            return of_nothing(self, x)
        return self._by_batch(x, mask)

    def extra_repr(self) -> str:
        """Return the settings for the module's printed form."""
        settings: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return settings + (", warm_start=True" if self.warm_start else "")

    def _by_running(self) -> bool:
        return not self.training and self.running_mean is not None

    def _by_batch(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the batch normalised by its own statistics, and move the running averages."""
        axes, exchange = legend(x.dim()), self._exchange(x)
        dims = MEMBERS["batch"].dims(axes)
        if mask is None and exchange is None:
            check_several_values(self, x, x.numel() // x.shape[1], "channel")
            if self._is_affine_fixed() and takes(x):
                return self._by_kernels(x, IDENTITY)
        found = statistics(x, dims, mask, exchange)
        if mask is not None or exchange is not None:
            check_counts(self, x, found.count, "channel")
        weight, bias = self._affine(found)
        y = normalise_by(x, along(weight, axes), along(bias, axes), found, dims, self.eps, mask, exchange)
        self._move_averages(found.mean.flatten(), unbiased(found.variance, found.count).flatten())
        return y

    def _by_kernels(self, x: Tensor, activation: Piecewise) -> Tensor:
        """Return the activation of the batch normalised by its own statistics, and move the averages."""
        y, mean, variance = batch_norm(x, self.weight, self.bias, self.eps, activation)
        self._move_averages(mean, unbiased(variance, x.numel() // x.shape[1]))
        return y

    def _move_averages(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running averages towards a batch's mean and unbiased variance, shape (C,)."""
        if self.training and self.track_running_stats:
            averages = Averages(self.running_mean, self.running_var, self.num_batches_tracked)
            move(self, averages, mean, variance, self.warm_start)

    def _is_affine_fixed(self) -> bool:
        """Whether γ and β don't depend on the batch's statistics."""
        return type(self)._affine is BatchLayer._affine

    def _exchange(self, _x: Tensor) -> Exchange | None:
        """Return how to pool a batch's statistics with other processes; None for this one alone."""
        return None

    def _affine(self, _found: Moments) -> tuple[Tensor | None, Tensor | None]:
        """Return γ and β to apply to a batch with some statistics."""
        return self.weight, self.bias

    def _check_input_dim(self, input: Tensor) -> None:
        check_rank(self, input, self._shapes)
        check_channels(self, input, self.num_features)
        check_floating(self, input)


class BatchNorm1d(BatchLayer, nn.BatchNorm1d):
    """Batch normalisation of features (N, C) or sequences (N, C, L): ``torch.nn.BatchNorm1d`` in every name.

    See :class:`BatchNorm2d` for arguments and semantics.

    Example:
        >>> import torch
        >>> BatchNorm1d(1)(torch.tensor([[1.0], [3.0]])).flatten().tolist()
        [-0.9999949932098389, 0.9999949932098389]
    """

    _shapes: ClassVar = {2: "(N, C)", 3: "(N, C, L)"}


class BatchNorm2d(BatchLayer, nn.BatchNorm2d):
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
        dtype: the parameters' dtype; the running averages stay in float32 or wider whatever it is.
        warm_start: whether the running averages begin as plain ones: the new value weighs max(momentum, 1/n)
            at the n-th batch. Not by default.

    A batch with NaN or infinite values moves no running average, and is reported once. A forward pass that
    activation checkpointing runs again during backward moves none either.

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


class BatchNorm3d(BatchLayer, nn.BatchNorm3d):
    """Batch normalisation of volumes (N, C, D, H, W): ``torch.nn.BatchNorm3d`` in every name.

    See :class:`BatchNorm2d` for arguments and semantics.

    Example:
        >>> import torch
        >>> BatchNorm3d(2)(torch.randn(2, 2, 3, 4, 5)).shape
        torch.Size([2, 2, 3, 4, 5])
    """

    _shapes: ClassVar = {5: "(N, C, D, H, W)"}
