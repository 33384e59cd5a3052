"""Convolutions and paddings whose border isn't zeros: what takes the place of zero padding after a fold.

Legend: C channels, H and W sizes, O outputs; one spatial axis in 1d, three in 3d.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from convscope.core.errors import ConvscopeError


class OtherSize(ConvscopeError):  # noqa: N818 - named by what it says
    """Inputs of another size than the one that a network was folded for."""


class _Bordered(_ConvNd):
    """What the convolutions here share: they take over all of a plain one, under its own names."""

    def __init__(self, convolution: _ConvNd) -> None:
        nn.Module.__init__(self)
        for name, item in vars(convolution).items():
            self.__dict__[name] = copy.copy(item) if isinstance(item, dict) else item


class _WithBiasMap(_Bordered):
    """See :class:`Conv2dWithBiasMap`."""

    input_size: list[int]

    def __init__(self, convolution: _ConvNd, bias: Tensor, input_size: Sequence[int], path: str = "") -> None:
        super().__init__(convolution)
        like = convolution.weight
        numbers = bias.to(device=like.device, dtype=like.dtype, copy=True)
        learns = (like if convolution.bias is None else convolution.bias).requires_grad
        self.register_parameter("bias", nn.Parameter(numbers, requires_grad=learns))
        self.input_size = list(input_size)
        self.path = path

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution plus the bias of each position."""
        bias = self.bias
        assert bias is not None
        given = input.shape[input.dim() - len(self.input_size) :]
        if list(given) != self.input_size:
            self._refuse(list(given))
        output = self._conv_forward(input, self.weight, None)
        return output + (bias if output.dim() == bias.dim() else bias[0])

    @torch.jit.unused
    def _refuse(self, given: list[int]) -> None:
        raise OtherSize(
            f"{self.path or type(self).__name__}: an input of size {_times(given)}",
            f"{_times(self.input_size)}, for which the bias of each position was computed",
            "fold for this size, or for any size with fold(..., border='pad')",
        )

    def extra_repr(self) -> str:
        """Return the convolution's settings and the size."""
        settings = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{settings}, input_size={_times(self.input_size)}"


def _times(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))


class Conv1dWithBiasMap(_WithBiasMap, nn.Conv1d):
    """See :class:`Conv2dWithBiasMap`; the bias is (1, C_out, L_out)."""


class Conv2dWithBiasMap(_WithBiasMap, nn.Conv2d):
    """A convolution with a bias for each position of its output: zeros around its input stand for a shift.

    Where x becomes x + b before a convolution that pads with zeros, the output shifts by less at the border
    than inside. The state dict has the names of the convolution's; its ``bias`` has the output's shape.

    Attributes:
        bias: (1, C_out, H_out, W_out).
        input_size: (H, W), the only one that it takes; a strided one has one output size for several.
        path: for messages.

    Args:
        convolution: whose settings and weight it takes over.
        bias: the bias of each position, cast to the weight's dtype.
        input_size: see above.
        path: see above.

    Raises:
        OtherSize: (a ConvscopeError) in forward, for inputs of another size.

    Not covered: sizes that change; see :class:`Conv2dWithBorder`.

    Example:
        >>> layer = Conv2dWithBiasMap(nn.Conv2d(1, 2, 3, padding=1), torch.zeros(1, 2, 4, 5), (4, 5))
        >>> layer(torch.zeros(1, 1, 4, 5)).shape
        torch.Size([1, 2, 4, 5])
        >>> layer(torch.zeros(1, 1, 5, 5))
        Traceback (most recent call last):
        convscope.fold.layers.bordered.OtherSize: Conv2dWithBiasMap: an input of size 5×5; expected 4×5, ...
    """


class Conv3dWithBiasMap(_WithBiasMap, nn.Conv3d):
    """See :class:`Conv2dWithBiasMap`; the bias is (1, C_out, D_out, H_out, W_out)."""


def _padded(input: Tensor, pads: list[int], border: Tensor) -> Tensor:
    """The input amid a border; ``pads``: before and after, for each of the last axes, the first one first."""
    num_axes = len(pads) // 2
    first = input.dim() - num_axes
    sizes = list(input.shape)
    for axis in range(num_axes):
        sizes[first + axis] += pads[2 * axis] + pads[2 * axis + 1]
    output = border.to(input.dtype).expand(sizes).contiguous()
    inner = output
    for axis in range(num_axes):
        inner = inner.narrow(first + axis, pads[2 * axis], input.shape[first + axis])
    inner.copy_(input)
    return output


class _WithBorder(_Bordered):
    """See :class:`Conv2dWithBorder`."""

    pads: list[int]
    border: Tensor

    def __init__(self, convolution: _ConvNd, border: Tensor, pads: Sequence[int]) -> None:
        super().__init__(convolution)
        like = convolution.weight
        shape = (-1, *(1,) * len(convolution.kernel_size))
        numbers = border.to(device=like.device, dtype=like.dtype, copy=True).reshape(shape)
        self.border = nn.Parameter(numbers, requires_grad=like.requires_grad)
        self.padding = (0,) * len(convolution.kernel_size)
        self._reversed_padding_repeated_twice = [0, 0] * len(convolution.kernel_size)
        self.pads = list(pads)

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of the padded input."""
        return self._conv_forward(_padded(input, self.pads, self.border), self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return the convolution's settings and the width of the border."""
        settings = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{settings}, pads={tuple(self.pads)}"


class Conv1dWithBorder(_WithBorder, nn.Conv1d):
    """See :class:`Conv2dWithBorder`; the border is (C_in, 1)."""


class Conv2dWithBorder(_WithBorder, nn.Conv2d):
    """A convolution that pads with a number per channel instead of zeros.

    Where x becomes a x + b before a convolution that pads with zeros, these become b. Its ``padding`` is 0:
    what it pads is in ``pads``.

    Attributes:
        border: (C_in, 1, 1).
        pads: (top, bottom, left, right).

    Args:
        convolution: whose settings and weights it takes over.
        border: numbers per input channel, cast to the weight's dtype.
        pads: see above.

    Not covered: doing so for free; the input is copied.

    Example:
        >>> layer = Conv2dWithBorder(nn.Conv2d(1, 1, 2, bias=False), torch.ones(1), (1, 0, 0, 0))
        >>> layer(torch.zeros(1, 1, 2, 3)).shape, bool(layer(torch.zeros(1, 1, 2, 3))[0, 0, 1].any())
        (torch.Size([1, 1, 2, 2]), False)
    """


class Conv3dWithBorder(_WithBorder, nn.Conv3d):
    """See :class:`Conv2dWithBorder`; the border is (C_in, 1, 1, 1), ``pads`` has six numbers."""


class PadWithBorder(nn.Module):
    """Pads with a number per channel, in the place of a padding with zeros.

    Attributes:
        border: (C, 1, …), an axis of length 1 for each that is padded or lies behind the channels.
        pads: before and after, for each axis behind the channels, the first one first.

    Args:
        border: numbers per channel.
        pads: see above.

    Example:
        >>> PadWithBorder(torch.tensor([[2.0]]), (1, 0))(torch.zeros(1, 1, 2))
        tensor([[[2., 0., 0.]]], grad_fn=<CopySlices>)
    """

    pads: list[int]

    def __init__(self, border: Tensor, pads: Sequence[int]) -> None:
        super().__init__()
        self.border = nn.Parameter(border)
        self.pads = list(pads)

    def forward(self, input: Tensor) -> Tensor:
        """Return the padded input."""
        return _padded(input, self.pads, self.border)

    def extra_repr(self) -> str:
        """Return the width of the border."""
        return f"pads={tuple(self.pads)}"


WITH_BIAS_MAP: dict[type[_ConvNd], Any] = {
    nn.Conv1d: Conv1dWithBiasMap,
    nn.Conv2d: Conv2dWithBiasMap,
    nn.Conv3d: Conv3dWithBiasMap,
}
"""By the class of the convolution whose place is taken."""

WITH_BORDER: dict[type[_ConvNd], Any] = {
    nn.Conv1d: Conv1dWithBorder,
    nn.Conv2d: Conv2dWithBorder,
    nn.Conv3d: Conv3dWithBorder,
}
"""By the class of the convolution whose place is taken."""
