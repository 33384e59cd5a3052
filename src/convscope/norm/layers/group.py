"""Group normalisation: statistics per sample and group of channels."""

import math
from typing import Any, overload

from jaxtyping import Bool, Float
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.norm.axes import MEMBERS, along, legend
from convscope.norm.engine.function import normalise
from convscope.norm.layers.checks import check_channels, check_floating, check_several_values, masked
from convscope.norm.naming import named


class GroupNorm(nn.GroupNorm):
    """Group normalisation (N, C, …): ``torch.nn.GroupNorm`` in every name.

    The C channels are split into ``num_groups`` groups; each group of each sample is normalised over its
    channels and space, x̂ = (x − μ) / √(σ² + ε), then y = γ x̂ + β with γ and β per channel. One group gives
    the layer norm of maps, one channel a group gives instance norm.

    Args:
        num_groups: number of groups; it divides ``num_channels``.
        num_channels: C.
        eps: ε, 1e-5.
        affine: whether to learn γ (``weight``) and β (``bias``).
        device: where parameters live.
        dtype: their dtype.

    Raises:
        ConvscopeError: the number of groups doesn't divide the number of channels.

    Source:
        Wu and He, "Group Normalization", arXiv 1803.08494.

    Example:
        >>> import torch
        >>> GroupNorm(2, 4, eps=0.0)(torch.tensor([[1.0, 3.0, 5.0, 5.5], [0.0, 8.0, -1.0, 1.0]])).tolist()
        [[-1.0, 1.0, -1.0, 1.0], [-1.0, 1.0, -1.0, 1.0]]
    """

    def __init__(self, num_groups: int, num_channels: int, *args: Any, **kwargs: Any) -> None:
        if num_groups < 1 or num_channels % num_groups:
            raise ConvscopeError(
                f"GroupNorm({num_groups}, {num_channels})",
                "a number of groups that divides the number of channels",
                f"choose one of {_divisors(num_channels)}",
            )
        super().__init__(num_groups, num_channels, *args, **kwargs)

    def forward(
        self, x: Float[Tensor, "n c *s"], mask: Bool[Tensor, "..."] | None = None
    ) -> Float[Tensor, "n c *s"]:
        """Return the normalised input, in the shape, dtype and layout of ``x``.

        Args:
            x: the input.
            mask: True where a value counts, shape (N, …) without channels, or broadcastable to ``x``; None to
                count all. What it leaves out comes out as 0 and gets no gradient.

        Raises:
            ConvscopeError: ``x`` has another number of channels, isn't floating point, has fewer than two
                dimensions, or is a single value per group; the mask isn't boolean or doesn't fit.
        """
        if x.dim() < 2:
            raise ConvscopeError(
                f"{named(self)} given an input of shape {tuple(x.shape)}", "shape (N, C, …)", "add dimensions"
            )
        check_channels(self, x, self.num_channels)
        check_floating(self, x)
        check_several_values(self, x, math.prod(x.shape[1:]) // self.num_groups, "group of a sample")
        mask = masked(self, x, mask)
        dims = MEMBERS["group"].dims(legend(x.dim(), grouped=True))
        weight, bias = (self._split(along(part, legend(x.dim()))) for part in (self.weight, self.bias))
        out = normalise(self._split(x), weight, bias, dims, self.eps, self._split(mask))
        return out.output.flatten(1, 2)

    @overload
    def _split(self, x: Tensor) -> Tensor: ...
    @overload
    def _split(self, x: None) -> None: ...
    def _split(self, x: Tensor | None) -> Tensor | None:
        """Return (N, C, …) as (N, G, c, …), and (N, 1, …) as (N, 1, 1, …); None stays None."""
        if x is None:
            return None
        groups = 1 if x.shape[1] == 1 and self.num_channels > 1 else self.num_groups
        return x.view(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
