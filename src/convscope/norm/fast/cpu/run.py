"""The kernels on tensors: which one takes a tensor, and what is left to do around it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from convscope.core.large_pages import empty_like
from convscope.norm.fast.activation import Piecewise
from convscope.norm.fast.cpu import columns, planes, rows
from convscope.norm.fast.cpu.threads import divided
from convscope.norm.fast.layout import is_by_planes, is_by_rows

_SHORT = 100
"""Values of a map below which channels go together."""
_PARTS = 64
"""Into so many parts rows are divided, whatever the number of threads."""
_LEAST_ROWS = 32
"""Rows of a part, which costs as much as 10 rows to join with the others."""

Array = np.ndarray[Any, Any]


def forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, shape: Piecewise
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return y, shift, residual and variance: ``operator.normalised`` by kernels.

    Args:
        x: float32 or bfloat16, dense, with at least one value.
        weight: γ or None.
        bias: β or None.
        eps: ε.
        shape: the activation.
    """
    y = empty_like(x)
    layer = _Layer.of(x.shape[1], weight, bias, eps, shape)
    shift, residual, variance = (torch.empty(x.shape[1]) for _ in range(3))
    statistics = (shift.numpy(), residual.numpy(), variance.numpy())
    if is_by_rows(x):
        _forward_by_rows(_rows(x), _rows(y), layer, statistics)
    else:
        divided(_by_planes(x).forward, x.shape[1], _planes(x), _planes(y), *layer, statistics)
    return y, shift, residual, variance


def apply(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    statistics: Sequence[Tensor],
    eps: float,
    shape: Piecewise,
) -> Tensor:
    """Return the y of :func:`forward`, to the last bit, from the statistics that it found."""
    x = _dense(x)
    y = empty_like(x)
    layer = _Layer.of(x.shape[1], weight, bias, eps, shape)
    arrays = tuple(one.numpy() for one in statistics)
    if is_by_rows(x):
        affine = _two_of(_rows(x))
        rows.affine(layer[:3], arrays, affine)
        divided(rows.forward, len(_rows(x)), _rows(x), _rows(y), arrays[0], *affine, layer.shape)
    else:
        divided(planes.apply, x.shape[1], _planes(x), _planes(y), *layer, arrays)
    return y


def backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    statistics: Sequence[Tensor],
    eps: float,
    shape: Piecewise,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dx, Σ q x̂ and Σ q, the gradients of γ and β: ``operator.gradients`` by kernels.

    Args:
        dy: gradient of the output, of any layout.
        x: as it was for :func:`forward`, as are γ, β, ε and the activation.
        weight: γ or None.
        bias: β or None.
        statistics: what :func:`forward` returned.
        eps: ε.
        shape: the activation.
    """
    x = _dense(x)
    dx = empty_like(x)
    dy = dy if dy.stride() == x.stride() else empty_like(x).copy_(dy)
    layer = _Layer.of(x.shape[1], weight, bias, eps, shape)
    arrays = tuple(one.numpy() for one in statistics)
    sum_q, sum_q_xhat = torch.empty(x.shape[1]), torch.empty(x.shape[1])
    sums = (sum_q.numpy(), sum_q_xhat.numpy())
    if is_by_rows(x):
        _backward_by_rows(_rows(dy), _rows(x), _rows(dx), layer, arrays, sums)
    else:
        run = _by_planes(x).backward
        divided(run, x.shape[1], _planes(dy), _planes(x), _planes(dx), *layer, arrays, sums)
    return dx, sum_q_xhat, sum_q


class _Layer(NamedTuple):
    """What kernels take of a layer: γ, β, ε and slope, low and high of its activation."""

    weight: Array
    bias: Array
    eps: float
    shape: tuple[np.float32, np.float32, np.float32]

    @classmethod
    def of(
        cls, channels: int, weight: Tensor | None, bias: Tensor | None, eps: float, shape: Piecewise
    ) -> "_Layer":
        gamma = torch.ones(channels) if weight is None else weight.detach().float()
        beta = torch.zeros(channels) if bias is None else bias.detach().float()
        slope, low, high = map(np.float32, shape)
        return cls(gamma.contiguous().numpy(), beta.contiguous().numpy(), eps, (slope, low, high))


def _dense(x: Tensor) -> Tensor:
    """A saved input in a layout of the kernels: hooks on saved tensors may have changed it."""
    return x if is_by_planes(x) or is_by_rows(x) else x.contiguous()


def _by_planes(x: Tensor) -> Any:
    return columns if x[0, 0].numel() < _SHORT else planes


def _planes(x: Tensor) -> Array:
    return _array(x.flatten(2) if x.dim() > 2 else x.unsqueeze(2))


def _rows(x: Tensor) -> Array:
    return _array(x.movedim(1, -1).flatten(0, -2))


def _array(x: Tensor) -> Array:
    x = x.detach()
    bits: Array = x.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else x.numpy()
    return bits


def _parts(x: Array) -> tuple[int, int]:
    """How many parts there are, and how many rows each of them has but the last."""
    each = max(-(-len(x) // _PARTS), _LEAST_ROWS)
    return -(-len(x) // each), each


def _forward_by_rows(x: Array, y: Array, layer: _Layer, statistics: tuple[Array, ...]) -> None:
    parts, each = _parts(x)
    means, squares = np.empty((parts, x.shape[1])), np.empty((parts, x.shape[1]))
    divided(rows.moments, parts, x, each, means, squares)
    affine = _two_of(x)
    rows.settle(means, squares, each, len(x), layer[:3], statistics, affine)
    divided(rows.forward, len(x), x, y, statistics[0], *affine, layer.shape)


def _backward_by_rows(
    dy: Array, x: Array, dx: Array, layer: _Layer, statistics: tuple[Array, ...], sums: tuple[Array, Array]
) -> None:
    parts, each = _parts(x)
    affine = _two_of(x)
    rows.affine(layer[:3], statistics, affine)
    terms = (statistics[0], *affine, layer.shape)
    shares = (np.empty((parts, x.shape[1])), np.empty((parts, x.shape[1])))
    divided(rows.products, parts, dy, x, each, *terms, shares)
    slopes = _two_of(x)
    rows.settle_gradients(shares, len(x), layer.eps, statistics, affine[0], sums, slopes)
    divided(rows.backward, len(x), dy, x, dx, *terms, slopes)


def _two_of(x: Array) -> tuple[Array, Array]:
    """Two arrays for a number a channel each."""
    return np.empty(x.shape[1], np.float32), np.empty(x.shape[1], np.float32)
