"""Kernels written into larger kernels: when one convolution can compute what another one does, and how.

A convolution's tap j reads the input at i·stride − padding + j·dilation. A kernel lies in another one of the
same stride if each of its taps falls on a tap of that one; what lies outside of the input is zero for both.
Output channel o of a convolution with g groups reads the input channels of its group; a kernel lies in one
with other groups if each output channel reads only channels that the other's reads too.

Limits: zero padding, plain (not transposed) convolutions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Geometry:
    """What a convolution reads, apart from its weights.

    Attributes:
        in_channels, out_channels: C_in and C_out.
        kernel_size, stride, padding, dilation: one number per spatial axis.
        groups: g.
    """

    in_channels: int
    out_channels: int
    kernel_size: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes
    groups: int = 1

    @property
    def weight_shape(self) -> Sizes:
        """The shape of its weights, (C_out, C_in / g, …)."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def __str__(self) -> str:
        kernel = "×".join(map(str, self.kernel_size))
        groups = f" in {self.groups} groups" if self.groups > 1 else ""
        return f"{kernel} kernel{groups}"


def pointwise(channels: int, axes: int) -> Geometry:
    """Return the geometry of one number per channel: a depthwise 1×1 convolution."""
    ones, zeros = (1,) * axes, (0,) * axes
    return Geometry(channels, channels, ones, ones, zeros, ones, channels)


def misfit(term: Geometry, host: Geometry) -> str:
    """Return why a convolution's kernel doesn't lie in another's, or ``""``.

    Args:
        term: the convolution that is to go into the other one.
        host: the other one; both have the same input, and outputs of the same shape.

    Example:
        >>> host = Geometry(4, 4, (3, 3), (1, 1), (1, 1), (1, 1))
        >>> misfit(pointwise(4, 2), host)
        ''
        >>> misfit(host, pointwise(4, 2))
        'a 3×3 kernel reaches beyond a 1×1 kernel in 4 groups'
    """
    if term.stride != host.stride:
        return f"a stride of {term.stride} isn't one of {host.stride}"
    if any(_taps(term, host, axis) is None for axis in range(len(host.kernel_size))):
        return f"a {term} reaches beyond a {host}"
    _, missing = _channel_offsets(term, host)
    return f"a {term} mixes channels that a {host} keeps apart" if missing else ""


def embedded(weight: Tensor, term: Geometry, host: Geometry) -> Tensor:
    """Return a convolution's weights as those of another one which computes the same.

    Args:
        weight: of ``term``, (C_out, C_in / g, …).
        term: the convolution.
        host: the other one; :func:`misfit` has nothing against it.

    Returns:
        The weights in ``host.weight_shape``, zero where ``term`` has no tap, in ``weight``'s dtype.

    Example:
        >>> host = Geometry(1, 1, (3,), (1,), (1,), (1,))
        >>> embedded(torch.tensor([[[2.0]]]), pointwise(1, 1), host)
        tensor([[[0., 2., 0.]]])
    """
    taps = [_taps(term, host, axis) for axis in range(len(host.kernel_size))]
    offsets, missing = _channel_offsets(term, host)
    assert not missing
    assert None not in taps
    spread = weight.new_zeros(*weight.shape[:2], *host.kernel_size)
    spread[(slice(None), slice(None), *taps)] = weight
    made = weight.new_zeros(host.weight_shape)
    rows = torch.arange(host.out_channels).unsqueeze(1)
    made[rows, offsets.unsqueeze(1) + torch.arange(weight.shape[1])] = spread
    return made


def _taps(term: Geometry, host: Geometry, axis: int) -> slice | None:
    """Which taps of the host are the term's, along one axis; None if one of them isn't there."""
    size, dilation = term.kernel_size[axis], host.dilation[axis]
    step = term.dilation[axis] if size > 1 else dilation
    start = host.padding[axis] - term.padding[axis]
    if start % dilation or step % dilation:
        return None
    first, step = start // dilation, step // dilation
    last = first + step * (size - 1)
    return slice(first, last + 1, step) if first >= 0 and last < host.kernel_size[axis] else None


def _channel_offsets(term: Geometry, host: Geometry) -> tuple[Tensor, bool]:
    """Where each output channel's inputs begin among those that the host reads; whether some are missing."""
    rows = torch.arange(host.out_channels)
    width, wide = (shape.in_channels // shape.groups for shape in (term, host))
    first, start = (
        rows // (shape.out_channels // shape.groups) * (shape.in_channels // shape.groups)
        for shape in (term, host)
    )
    offsets = first - start
    return offsets, bool(((offsets < 0) | (offsets + width > wide)).any())
