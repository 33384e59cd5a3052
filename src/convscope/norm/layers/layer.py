"""Layer normalisation: statistics per sample, over the trailing dimensions that the layer is built for."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.norm.axes import MEMBERS
from convscope.norm.engine.function import normalise
from convscope.norm.layers.checks import check_floating, masked
from convscope.norm.naming import named


class LayerNorm(nn.LayerNorm):
    """Layer normalisation over trailing dimensions: ``torch.nn.LayerNorm`` in every name.

    x̂ = (x − μ) / √(σ² + ε), y = γ x̂ + β, with γ and β for every position of the normalised shape. Each
    sample is normalised on its own, in training and at test time alike. (The layer norm of maps of unknown
    size, with γ and β per channel, is ``GroupNorm(1, channels)``.)

    Args:
        normalized_shape: the trailing sizes, a number or a sequence.
        eps: ε, 1e-5.
        elementwise_affine: whether to learn γ (``weight``).
        bias: whether to learn β too.
        device: where parameters live.
        dtype: their dtype.

    Source:
        Ba, Kiros and Hinton, "Layer Normalization", arXiv 1607.06450.

    Example:
        >>> LayerNorm(2, eps=0.0)(torch.tensor([[1.0, 3.0], [5.0, 5.5]])).tolist()
        [[-1.0, 1.0], [-1.0, 1.0]]
    """

    def forward(
        self, x: Float[Tensor, "..."], mask: Bool[Tensor, "..."] | None = None
    ) -> Float[Tensor, "..."]:
        """Return the normalised input, in the shape, dtype and layout of ``x``.

        Args:
            x: the input.
            mask: True where a value counts, of the rank of ``x`` and broadcastable to it; None to count all.
                What it leaves out comes out as 0 and gets no gradient.

        Raises:
            ConvscopeError: ``x`` doesn't end in the normalised shape, or isn't floating point; the mask isn't
                boolean or doesn't fit.
        """
        num_dims = len(self.normalized_shape)
        if tuple(x.shape[x.dim() - num_dims :]) != self.normalized_shape or x.dim() < num_dims:
            raise ConvscopeError(
                f"{named(self)} given an input of shape {tuple(x.shape)}",
                f"trailing sizes {tuple(self.normalized_shape)}",
                "build the layer for them, or use GroupNorm(1, channels) for maps",
            )
        check_floating(self, x)
        if mask is not None and mask.dim() != x.dim():
            raise ConvscopeError(
                f"{named(self)} given a mask of shape {tuple(mask.shape)} for an input of {tuple(x.shape)}",
                f"a mask of {x.dim()} dimensions",
                "add dimensions of size 1",
            )
        mask = masked(self, x, mask)
        axes = "N" * (x.dim() - num_dims) + "C" + "S" * (num_dims - 1)
        dims = MEMBERS["layer"].dims(axes)
        return normalise(x, _lead(self.weight, x), _lead(self.bias, x), dims, self.eps, mask).output


def _lead(parameter: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor | None:
    """Return a parameter with leading dimensions of size 1, up to the rank of the input."""
    if parameter is None:
        return None
    return parameter.view((1,) * (x.dim() - parameter.dim()) + tuple(parameter.shape))
