"""Batch norm and its activation on GPUs: two passes over x forward, two over (x, dy) backward.

Nothing but x and three numbers a channel waits for the backward pass, which finds the activation's mask in x
again. 8 element-sizes move per value: 3 forward, 5 backward. The kernels are in ``gpu_kernels``; Triton is
imported when first called.
"""

import math
from types import ModuleType
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.norm.fast.activation import Piecewise
from convscope.norm.fast.layout import is_by_planes, is_by_rows

_TILE = 4096  # values: 16 for each thread of 8 warps
_WARPS = 8
_PROGRAMS = 132 * 8  # an H200 has 132 multiprocessors, each with room for 8 such programs
_MOST_PARTS = 1024
_MERGED_TILE = 8192
_ROW = 64  # channels: 128 bytes of bfloat16

Statistics = tuple[Float[Tensor, " c"], Float[Tensor, " c"], Float[Tensor, " c"]]
"""Shift, residual and biased variance in float32; the mean is shift + residual."""


def takes(x: Tensor) -> bool:
    """Whether the kernels take a batch: (N, C, …) in float32 or half, contiguous or channels_last, not empty.

    Example:
        >>> x = torch.zeros(2, 3, 4, 4)
        >>> takes(x), takes(x.to(memory_format=torch.channels_last)), takes(x[..., ::2]), takes(x.double())
        (True, True, False, False)
    """
    return (
        x.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and 2 <= x.dim() <= 5
        and x.numel() > 0
        and (is_by_planes(x) or is_by_rows(x))
    )


def forward(
    x: Float[Tensor, "n c ..."],
    weight: Float[Tensor, " c"] | None,
    bias: Float[Tensor, " c"] | None,
    eps: float,
    shape: Piecewise,
) -> tuple[Float[Tensor, "n c ..."], Float[Tensor, " c"], Float[Tensor, " c"], Float[Tensor, " c"]]:
    """Return y = activation(γ (x − μ) / √(σ² + ε) + β), and the statistics of x.

    Args:
        x: what :func:`takes` takes.
        weight: γ in any floating dtype, or None for 1.
        bias: β likewise, or None for 0.
        eps: ε.
        shape: the activation.

    Returns:
        y in dtype and layout of x; shift, residual and biased variance (C,) in float32.

    Source:
        Chan, Golub and LeVeque, "Algorithms for computing the sample variance", The American Statistician
        37 (1983), for the moments.
    """
    kernels, plan = _kernels(), _plan(x)
    partial = x.new_empty((3, plan.parts, plan.channels), dtype=torch.float32)
    statistics = x.new_empty((3, plan.channels), dtype=torch.float32)
    span = plan.tiles * plan.values
    with _on(x):
        kernels.moments[plan.split](
            x, partial, plan.count, plan.channels, plan.tiles, **plan.tile, num_warps=_WARPS
        )
        kernels.merge_moments[plan.merging](
            partial, statistics, plan.parts, plan.count, plan.channels, span, **plan.merged
        )
    shift, residual, variance = statistics.unbind()
    return apply(x, weight, bias, (shift, residual, variance), eps, shape), shift, residual, variance


def apply(
    x: Float[Tensor, "n c ..."],
    weight: Float[Tensor, " c"] | None,
    bias: Float[Tensor, " c"] | None,
    statistics: Statistics,
    eps: float,
    shape: Piecewise,
) -> Float[Tensor, "n c ..."]:
    """Return the y of :func:`forward`, to the last bit, from the statistics that it found."""
    kernels, plan, y = _kernels(), _plan(x), torch.empty_like(x)
    weight, bias, moments = _dense(weight), _dense(bias), torch.stack(tuple(statistics))
    with _on(x):
        kernels.apply[plan.each](
            *(x, y, *_given(weight, bias, x), moments, plan.count, plan.channels, eps, *shape),
            **(_which(weight, bias) | plan.tile),
            num_warps=_WARPS,
        )
    return y


def backward(  # one argument for each symbol of the formula
    dy: Float[Tensor, "n c ..."],
    x: Float[Tensor, "n c ..."],
    weight: Float[Tensor, " c"] | None,
    bias: Float[Tensor, " c"] | None,
    statistics: Statistics,
    eps: float,
    shape: Piecewise,
) -> tuple[Float[Tensor, "n c ..."], Float[Tensor, " c"], Float[Tensor, " c"]]:
    """Return the gradients of x, γ and β; with g = dy act'(u), dx = A g + B (x − shift) + D per channel.

    Args:
        dy: the gradient of y, in any layout.
        x: as it was in :func:`forward`, as are γ, β, ε and the activation.
        weight: γ or None.
        bias: β or None.
        statistics: shift, residual and variance from :func:`forward`.
        eps: ε.
        shape: the activation.

    Returns:
        dx in dtype and layout of x; dγ = Σ g x̂ and dβ = Σ g in float32.
    """
    kernels, plan = _kernels(), _plan(x)
    dy, moments = _laid_out(dy, x), torch.stack(statistics)
    weight, bias = _dense(weight), _dense(bias)
    partial = x.new_empty((2, plan.parts, plan.channels), dtype=torch.float32)
    found = x.new_empty((5, plan.channels), dtype=torch.float32)
    size, dx = (plan.count, plan.channels), torch.empty_like(x)
    options = {**_which(weight, bias), **plan.tile, "num_warps": _WARPS}
    given = (*_given(weight, bias, x), moments)
    with _on(x):
        kernels.sums[plan.split](dy, x, *given, partial, *size, plan.tiles, eps, *shape, **options)
        kernels.merge_sums[plan.merging](
            *(partial, moments, given[0], found, plan.parts, *size, eps),
            WEIGHT=weight is not None,
            **plan.merged,
        )
        kernels.gradient[plan.each](dy, x, dx, *given, found, *size, eps, *shape, **options)
    return dx, found[0], found[1]


class _Plan(NamedTuple):
    """How the values are split over programs: ``parts`` programs a channel block, of ``tiles`` tiles each."""

    count: int  # type: ignore[assignment]  # hides tuple.count
    channels: int
    values: int
    tiles: int
    parts: int
    split: tuple[int, int]
    each: tuple[int, int]
    merging: tuple[int]
    tile: dict[str, int]
    merged: dict[str, int]


def _plan(x: Tensor) -> _Plan:
    channels = x.shape[1]
    count = x.numel() // channels
    inner = math.prod(x.shape[2:]) if is_by_planes(x) else 1
    side = 1 if inner > 1 else min(_ROW, _power(channels))
    values = min(_TILE // side, max(_power(count), 16))
    needed, blocks = -(-count // values), -(-channels // side)
    tiles = -(-needed // min(needed, _MOST_PARTS, -(-_PROGRAMS // blocks)))
    parts = -(-needed // tiles)
    together = min(_power(channels), max(_MERGED_TILE // _power(parts), 1), 32)
    # Blocks that reach beyond the last value compute offsets there, too.
    wide = (count + tiles * values) * (channels + side) >= 2**31
    tile = {"INNER": inner, "VALUES": values, "CHANNELS": side, "WIDE": wide}
    return _Plan(
        *(count, channels, values, tiles, parts, (parts, blocks), (needed, blocks)),
        (-(-channels // together),),
        tile,
        {"PARTS": _power(parts), "CHANNELS": together},
    )


def _power(number: int) -> int:
    """Return the least power of two that isn't less."""
    return 1 << (number - 1).bit_length()


def _kernels() -> ModuleType:
    from convscope.norm.fast import gpu_kernels  # Triton comes with PyTorch for CUDA only

    return gpu_kernels


def _on(x: Tensor) -> torch.cuda.device:
    """Triton launches on the current device; −1 changes nothing."""
    return torch.cuda.device(x.device.index if x.is_cuda else -1)


def _dense(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.contiguous()


def _which(weight: Tensor | None, bias: Tensor | None) -> dict[str, int]:
    return {"WEIGHT": weight is not None, "BIAS": bias is not None}


def _given(weight: Tensor | None, bias: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return γ and β, and for one that isn't there any tensor: it isn't read."""
    return x if weight is None else weight, x if bias is None else bias


def _laid_out(dy: Tensor, x: Tensor) -> Tensor:
    """Return the gradient in the memory layout of ``x``."""
    return dy.contiguous() if is_by_planes(x) else dy.movedim(1, -1).contiguous().movedim(-1, 1)
