"""Batch normalisation and the activation behind it in one layer, in one step where kernels take it.

PyTorch runs the two one after the other: 13 times an activation's bytes move between memory and processor,
forward and backward, and both results are kept. In one step 8 move, and the input is all that is kept: the
activation's mask is had from it again.
"""

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from convscope.norm.fast.activation import Piecewise, piecewise
from convscope.norm.fast.choosing import has_hooks, takes
from convscope.norm.layers.batch import BatchLayer, BatchNorm1d, BatchNorm2d, BatchNorm3d
from convscope.norm.layers.checks import check_several_values


class ActivatedLayer(BatchLayer):
    """What batch norms with an activation have in common."""

    def __init__(
        self, num_features: int, *args: Any, activation: nn.Module | None = None, **kwargs: Any
    ) -> None:
        super().__init__(num_features, *args, **kwargs)
        self.activation = nn.ReLU() if activation is None else activation

    def forward(
        self, x: Float[Tensor, "n c *s"], mask: Bool[Tensor, "..."] | None = None
    ) -> Float[Tensor, "n c *s"]:
        """Return the activation of the normalised batch, in the shape, dtype and layout of ``x``.

        Args:
            x: the batch.
            mask: as in :class:`convscope.norm.BatchNorm2d`; what it leaves out is the activation of 0.

        Raises:
            ConvscopeError: what :class:`convscope.norm.BatchNorm2d` refuses.
        """
        shape = self._shape()
        if shape is None or mask is not None or self._by_running() or not takes(x):
            y: Tensor = self.activation(super().forward(x, mask))
            return y
        self._check_input_dim(x)
        check_several_values(self, x, x.numel() // x.shape[1], "channel")
        return self._by_kernels(x, shape)

    def _shape(self) -> Piecewise | None:
        """Return what the kernels are to apply; None where the activation's module has to be called."""
        activation = self.activation
        if has_hooks(activation) or "forward" in vars(activation):
            return None
        return piecewise(activation)


class BatchNormAct1d(ActivatedLayer, BatchNorm1d):
    """Batch normalisation of features (N, C) or sequences (N, C, L), then an activation.

    See :class:`BatchNormAct2d` for arguments and semantics.

    Example:
        >>> import torch
        >>> BatchNormAct1d(1, eps=0.0)(torch.tensor([[1.0], [3.0]])).flatten().tolist()
        [0.0, 1.0]
    """


class BatchNormAct2d(ActivatedLayer, BatchNorm2d):
    """Batch normalisation of maps (N, C, H, W), then an activation: ``BatchNorm2d`` and ``ReLU`` in one.

    Args:
        num_features: C.
        activation: any module, by default ``nn.ReLU()``. ReLU, ReLU6, hardtanh, leaky ReLU and the identity
            are computed on the way; others are called behind the norm.
        **kwargs: by name, ``eps``, ``momentum``, ``affine``, ``track_running_stats``, ``device``, ``dtype``
            and ``warm_start`` as in :class:`convscope.norm.BatchNorm2d`, with its state dict.

    Where kernels take the batch (``convscope.norm.kernels``) norm and activation are one step; elsewhere, at
    test time, and where the activation has hooks, they run one after the other, with the same result but for
    its last bits.

    Raises:
        ConvscopeError: in ``forward``, what :class:`convscope.norm.BatchNorm2d` refuses.

    Example:
        >>> import torch
        >>> layer = BatchNormAct2d(3, activation=nn.ReLU6())
        >>> y = layer(torch.randn(8, 3, 5, 4))
        >>> y.min().item(), list(layer.state_dict()) == list(nn.BatchNorm2d(3).state_dict())
        (0.0, True)
    """


class BatchNormAct3d(ActivatedLayer, BatchNorm3d):
    """Batch normalisation of volumes (N, C, D, H, W), then an activation.

    See :class:`BatchNormAct2d` for arguments and semantics.

    Example:
        >>> import torch
        >>> BatchNormAct3d(2)(torch.randn(2, 2, 3, 4, 5)).min().item()
        0.0
    """
