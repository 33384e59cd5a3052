"""The sums of the backward pass, block by block: over sets for x, over positions for γ and β.

Where γ is constant over large parts of a set (batch, instance and group norm), dy and dy (x − shift) are
summed over those parts, and everything else is arithmetic on few numbers. Where it differs from position to
position (layer norm), each block adds to the sums of its sets and of its positions at once.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from convscope.norm.engine.blocks import arrange, dense, part, within
from convscope.norm.engine.statistics import total


def sums(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mask: Tensor | None,
    terms: Sequence[Tensor],
    dims: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return Σ γ dy and Σ γ dy x̂ over sets, Σ dy x̂ and Σ dy over parameters: ``formulas.sums``."""
    x, invalid = dense(x), None if mask is None else ~mask
    if weight is not None and is_by_position(weight.shape, x.shape, dims):
        return _by_position(dy, x, weight, invalid, terms)
    constant = [dim for dim in dims if weight is None or weight.shape[dim] == 1]
    shape = [1 if dim in constant else size for dim, size in enumerate(x.shape)]
    shift, residual, scale = terms
    sum_dy, sum_dy_deviation = _by_part(shape, dy, x, shift, invalid)
    sum_dy_xhat = (sum_dy_deviation - residual * sum_dy) * scale
    if weight is None:
        return sum_dy, sum_dy_xhat, sum_dy.new_empty(0), sum_dy.new_empty(0)
    rest = tuple(dim for dim in dims if dim not in constant)
    sum_u, sum_u_xhat = (total(weight * share, rest) for share in (sum_dy, sum_dy_xhat))
    dweight, dbias = (share.sum_to_size(weight.shape) for share in (sum_dy_xhat, sum_dy))
    return sum_u, sum_u_xhat, dweight, dbias


def is_by_position(weight: Sequence[int], x: Sequence[int], dims: Sequence[int]) -> bool:
    """Return whether sums over the parts of sets that share a γ would be many beside the values.

    Args:
        weight: shape of γ.
        x: shape of the input, of the same rank.
        dims: the dimensions of a set.

    Example:
        >>> is_by_position((1, 8, 1, 1), (4, 8, 9, 9), (0, 2, 3)), is_by_position((1, 1, 8), (4, 9, 8), (2,))
        (False, True)
    """
    alike = math.prod([x[dim] for dim in dims if weight[dim] == 1])
    return alike < 8


def _by_part(
    shape: Sequence[int], dy: Tensor, x: Tensor, shift: Tensor, invalid: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return Σ dy and Σ dy (x − shift), in a shape that has 1 where they are summed."""
    plan = arrange(x, shift, x.new_empty(()).expand(shape), invalid)
    product = plan.scratch(x, shift.dtype)
    upstream = None if invalid is None and dy.dtype == shift.dtype else plan.scratch(x, shift.dtype)
    if plan.whole:
        dims = tuple(dim for dim, size in enumerate(shape) if size == 1)
        sum_dy, sum_product = _share(dims, product, upstream, dy, x, shift, invalid)
        return sum_dy.contiguous(), sum_product.contiguous()
    found = [plan.result(shape, shift.dtype, x.device) for _ in range(2)]
    for sets, blocks, inner in plan.by_set(found[0]):
        parts = plan.walk(dy, x, shift, invalid, among=blocks)
        shares = [_share(inner, product, upstream, *block) for block in parts]
        for whole, pieces in zip(found, zip(*shares, strict=True), strict=True):
            plan.view(whole)[sets] = pieces[0] if len(pieces) == 1 else torch.stack(pieces).double().sum(0)
    return found[0], found[1]


def _share(
    dims: tuple[int, ...],
    product: Tensor,
    upstream: Tensor | None,
    dy: Tensor,
    x: Tensor,
    shift: Tensor,
    invalid: Tensor | None,
) -> tuple[Tensor, Tensor]:
    deviation = torch.sub(x, shift, out=within(product, x))
    values = _prepared(dy, deviation, upstream, invalid)
    return total(values, dims), total(deviation.mul_(values), dims)


def _by_position(
    dy: Tensor, x: Tensor, weight: Tensor, invalid: Tensor | None, terms: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return all four sums, each block adding its share."""
    shift, residual, scale = terms
    plan = arrange(x, weight, shift, invalid)
    # Over many blocks in float64; accelerators, which may have none, take one block.
    dtype = shift.dtype if plan.whole else torch.float64
    found = [plan.result(t.shape, dtype, x.device).zero_() for t in (shift, shift, weight, weight)]
    product, upstream = (plan.scratch(x, shift.dtype) for _ in range(2))
    sum_u, sum_u_xhat, dweight, dbias = (plan.view(result) for result in found)
    set_dims, parameter_dims = (
        tuple(dim for dim, size in enumerate(one.shape) if size == 1) for one in (sum_u, dweight)
    )
    operands = (dy, x, weight, shift, residual, scale, invalid)
    for index, blocks in zip(plan.blocks(), plan.walk(*operands), strict=True):
        dy_block, x_block, weight_block, shift_block, residual_block, scale_block, outside = blocks
        xhat = torch.sub(x_block, shift_block, out=within(product, x_block))
        xhat.sub_(residual_block).mul_(scale_block)
        values = _prepared(dy_block, xhat, upstream, outside)
        xhat.mul_(values)
        part(dweight, index).add_(total(xhat, parameter_dims))
        part(dbias, index).add_(total(values, parameter_dims))
        part(sum_u_xhat, index).add_(total(xhat.mul_(weight_block), set_dims))
        weighted = torch.mul(values, weight_block, out=within(upstream, x_block))
        part(sum_u, index).add_(total(weighted, set_dims))
    return tuple(result.to(shift.dtype) for result in found)  # type: ignore[return-value]  # four


def _prepared(dy: Tensor, factor: Tensor, scratch: Tensor | None, invalid: Tensor | None) -> Tensor:
    """Return dy in the dtype of sums; with a mask, 0 outside it, as the factor that it will meet becomes."""
    if scratch is None or (invalid is None and dy.dtype == factor.dtype):
        return dy
    values = within(scratch, dy).copy_(dy)
    if invalid is not None:
        values.masked_fill_(invalid, 0)
        factor.masked_fill_(invalid, 0)
    return values
