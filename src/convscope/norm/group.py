"""Group normalisation: statistics per sample and group of channels."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.norm.axes import MEMBERS, legend
from convscope.norm.checks import check_channels, check_floating, check_several_values
from convscope.norm.function import normalise


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

    def forward(self, x: Float[Tensor, "n c *s"]) -> Float[Tensor, "n c *s"]:
        """Return the normalised input, in the shape, dtype and layout of ``x``.

        Raises:
            ConvscopeError: ``x`` has another number of channels, isn't floating point, has fewer than two
                dimensions, or is a single value per group of a single sample.
        """
        if x.dim() < 2:
            raise ConvscopeError(
                f"GroupNorm given an input of shape {tuple(x.shape)}", "shape (N, C, …)", "add the dimensions"
            )
        check_channels("GroupNorm", x, self.num_channels)
        check_floating("GroupNorm", x)
        check_several_values("GroupNorm", x, x.numel() // self.num_groups, "group")
        axes = legend(x.dim(), grouped=True)
        split = (self.num_groups, self.num_channels // self.num_groups)
        weight, bias = (
            None if p is None else p.view(1, *split, *(1,) * (x.dim() - 2)) for p in (self.weight, self.bias)
        )
        out = normalise(
            x.view(x.shape[0], *split, *x.shape[2:]), weight, bias, MEMBERS["group"].dims(axes), self.eps
        )
        return out.output.flatten(1, 2)


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
