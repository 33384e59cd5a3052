"""The core's three formulas over whole tensors, differentiable as often as wanted.

``kernels`` evaluates the same formulas block by block, faster and without derivatives; these here stand
behind derivatives of derivatives and vmap. ``function`` derives them.
"""

import torch
from torch import Tensor

from convscope.norm.engine.statistics import total, widened


def normalised(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    statistics: tuple[Tensor, Tensor, Tensor],
    eps: float,
) -> Tensor:
    """Return γ (x − μ) / √(σ² + ε) + β in the dtype of ``x``; 0 where a mask is False.

    Args:
        x: floating point.
        weight: γ, of the rank of ``x`` and with size 1 wherever it broadcasts; None, with ``bias``, for 1.
        bias: β, likewise; None for 0.
        mask: True where a value counts, likewise; None to count all.
        statistics: shift, residual and variance, likewise.
        eps: ε.
    """
    shift, residual, variance = statistics
    y = (widened(x) - shift - residual) * torch.rsqrt(variance + eps)
    y = y if weight is None else y * weight
    y = y if bias is None else y + bias
    return _kept(y, mask).to(x.dtype)


def sums(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mask: Tensor | None,
    terms: tuple[Tensor, Tensor, Tensor],
    dims: tuple[int, ...],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return Σ γ dy and Σ γ dy x̂ over sets, then Σ dy x̂ and Σ dy over all values that share a parameter.

    Args:
        dy: gradient of the output.
        x: the input.
        weight: γ or None, which leaves the last two empty.
        mask: True where a value counts; None to count all.
        terms: shift, residual and scale 1/√(σ² + ε), a number a set.
        dims: the dimensions of a set; its sums have size 1 there, and the last two the shape of γ.
    """
    shift, residual, scale = terms
    dy = _kept(widened(dy), mask)
    product = dy * (_kept(widened(x) - shift, mask) - residual) * scale
    if weight is None:
        return total(dy, dims), total(product, dims), dy.new_empty(0), dy.new_empty(0)
    of_sets = (total(dy * weight, dims), total(product * weight, dims))
    return *of_sets, product.sum_to_size(weight.shape), dy.sum_to_size(weight.shape)


def gradient(
    dy: Tensor, x: Tensor, weight: Tensor | None, mask: Tensor | None, terms: tuple[Tensor, ...]
) -> Tensor:
    """Return scale γ dy + slope (x − shift) + offset in the dtype of ``x``; 0 where a mask is False.

    Args:
        dy: gradient of the output.
        x: the input.
        weight: γ or None.
        mask: True where a value counts; None to count all.
        terms: shift, scale, slope and offset, a number a set.
    """
    shift, scale, slope, offset = terms
    # What a mask leaves out is 0 in every product: 0 times NaN would be NaN in their derivatives.
    upstream, deviation = _kept(widened(dy), mask), _kept(widened(x) - shift, mask)
    upstream = upstream if weight is None else upstream * weight
    return _kept(upstream * scale + deviation * slope + offset, mask).to(x.dtype)


def _kept(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return values with 0 where a mask is False, whatever stood there."""
    return values if mask is None else values.masked_fill(~mask, 0)
