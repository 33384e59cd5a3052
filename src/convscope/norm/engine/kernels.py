"""The core's two passes over all values, block by block: each reads memory once and writes its result once.

Nothing of the input's size is allocated but the result, for half precision neither: a block is computed in
float32 and rounded once. Not differentiable, and not for vmap, which sees no blocks (``formulas`` is).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from convscope.norm.engine.blocks import arrange, dense, within


def normalised(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    statistics: Sequence[Tensor],
    eps: float,
) -> Tensor:
    """Return γ (x − μ) / √(σ² + ε) + β: ``formulas.normalised``, in the memory layout of ``x``."""
    x, invalid = dense(x), None if mask is None else ~mask
    shift, variance = statistics[0], statistics[2]
    residual: Tensor | None = statistics[1]
    scale = torch.rsqrt(variance + eps)
    if _small(scale, weight, x):
        # γ and β are constant over parts of a set: one multiplication and one addition a value.
        scale = scale if weight is None else scale * weight
        bias = -statistics[1] * scale if bias is None else bias - statistics[1] * scale
        residual = weight = None
    out = torch.empty_like(x)
    operands = (shift, residual, scale, weight, bias, invalid)
    plan = arrange(x, *operands)
    scratch = plan.scratch(x, shift.dtype) if x.dtype != shift.dtype else None
    for x_block, target, *block in plan.walk(x, out, *operands):
        work = target if scratch is None else within(scratch, target)
        _normalise_block(work, x_block, *block)
        if scratch is not None:
            target.copy_(work)
    return out


def gradient(
    dy: Tensor, x: Tensor, weight: Tensor | None, mask: Tensor | None, terms: Sequence[Tensor]
) -> Tensor:
    """Return scale γ dy + slope (x − shift) + offset: ``formulas.gradient``, in the layout of ``x``."""
    x, invalid = dense(x), None if mask is None else ~mask
    shift, scale, slope, offset = terms
    if weight is not None and _small(scale, weight, x):
        scale, weight = scale * weight, None
    dx = torch.empty_like(x)
    operands = (weight, invalid, shift, scale, slope, offset)
    plan = arrange(x, *operands)
    upstream = plan.scratch(x, shift.dtype)
    scratch = plan.scratch(x, shift.dtype) if x.dtype != shift.dtype else None
    for dy_block, x_block, target, *block in plan.walk(dy, x, dx, *operands):
        work = target if scratch is None else within(scratch, target)
        _gradient_block(work, within(upstream, dy_block), dy_block, x_block, *block)
        if scratch is not None:
            target.copy_(work)
    return dx


def _normalise_block(
    out: Tensor,
    x: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    scale: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    invalid: Tensor | None,
) -> None:
    torch.sub(x, shift, out=out)
    if residual is not None:
        out.sub_(residual)
    out.mul_(scale)
    if weight is not None:
        out.mul_(weight)
    if bias is not None:
        out.add_(bias)
    if invalid is not None:
        out.masked_fill_(invalid, 0)


def _gradient_block(
    out: Tensor,
    upstream: Tensor,
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    invalid: Tensor | None,
    shift: Tensor,
    scale: Tensor,
    slope: Tensor,
    offset: Tensor,
) -> None:
    torch.sub(x, shift, out=out)
    out.mul_(slope).add_(offset)
    torch.mul(dy, scale, out=upstream)
    if weight is not None:
        upstream.mul_(weight)
    out.add_(upstream)
    if invalid is not None:
        out.masked_fill_(invalid, 0)


def _small(scale: Tensor, weight: Tensor | None, x: Tensor) -> bool:
    """Whether the scale of sets and γ may be multiplied beforehand: the product is small beside ``x``."""
    if weight is None:
        return True
    values = math.prod([max(pair) for pair in zip(scale.shape, weight.shape, strict=True)])
    return 8 * values <= x.numel()
