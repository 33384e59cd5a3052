"""The core's two formulas as operators, ``convscope::normalise`` and ``convscope::normalise_backward``.

As operators they are one line each in a recording, a profile or an exported graph, where PyTorch's own batch
norm is one line too; their arithmetic, about sixty small calls, stays out of sight. They run wherever PyTorch
does, simulated tensors included. Batch and instance norm allocate nothing of the input's size beyond their
result, except for half precision, which is computed in a float32 copy. ``function`` derives the formulas and
differentiates them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from convscope.norm.statistics import moments, set_size, total, widened

_LIBRARY = torch.library.Library("convscope", "FRAGMENT")  # type: ignore[no-untyped-call]


def forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, dims: Sequence[int], eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return γ (x − μ) / √(σ² + ε) + β, then μ as shift and residual, and σ² (see ``statistics.Moments``).

    Args:
        x: floating point, any layout.
        weight: γ, of the rank of ``x`` and with size 1 wherever it broadcasts; None, with ``bias``, for 1.
        bias: β, in the shape and dtype of ``weight``; None for 0.
        dims: the dimensions that share statistics, in ascending order.
        eps: ε.
    """
    dims = tuple(dims)
    shift, residual, variance, scratch = moments(x, dims)
    scale = torch.rsqrt(variance + eps)
    output = scratch.copy_(x).sub_(shift)
    if weight is None or _constant_dims(weight, dims):
        # γ and β are constant over parts of a set: one multiplication and one addition a value.
        factor = scale if weight is None else scale * weight
        offset = -residual * factor if bias is None else bias - residual * factor
        output.mul_(factor).add_(offset)
    else:
        output.sub_(residual).mul_(scale).mul_(weight)
        output = output if bias is None else output.add_(bias)
    return output.to(x.dtype), shift, residual, variance


def backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    statistics: Sequence[Tensor],
    dims: Sequence[int],
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients with respect to x, γ and β, given that of the output.

    Without γ the last two are the sums over each set, in which nobody is interested. Differentiable, if the
    statistics are given as functions of ``x``.

    Args:
        dy: gradient of the output.
        x: the input of the forward pass.
        weight: γ or None.
        statistics: shift, residual and variance, as the forward pass returned them.
        dims: as in the forward pass.
        eps: as in the forward pass.
    """
    dims, constant = tuple(dims), _constant_dims(weight, dims)
    shift, residual, variance = statistics
    scale = torch.rsqrt(variance + eps)
    dy_wide = widened(dy)
    # Under vmap over dy alone, this gives x − shift the batch dimension that in-place products need.
    shift = shift + dy_wide.new_zeros(())
    deviation = widened(x) - shift
    sum_dy = total(dy_wide, constant)
    sum_dy_xhat = (total(deviation.mul_(dy_wide), constant) - residual * sum_dy) * scale
    mean_u, mean_u_xhat = (_set_mean(part, weight, dims, x.shape) for part in (sum_dy, sum_dy_xhat))
    # The minimal form, with its terms gathered: dx = factor dy + slope (x − shift) + offset.
    factor = scale if weight is None else scale * weight
    slope = -scale.square() * mean_u_xhat
    offset = -scale * mean_u - residual * slope
    dx = deviation.copy_(x).sub_(shift).mul_(slope).add_(offset).addcmul_(dy_wide, factor).to(x.dtype)
    if weight is None:
        return dx, sum_dy_xhat, sum_dy
    dbias = sum_dy.sum_to_size(weight.shape).to(weight.dtype)
    # A sum over nothing is dy itself, which an operator may not return.
    dbias = dbias.clone() if dbias.shape == dy.shape else dbias
    return dx, sum_dy_xhat.sum_to_size(weight.shape).to(weight.dtype), dbias


def _set_mean(part: Tensor, weight: Tensor | None, dims: tuple[int, ...], shape: torch.Size) -> Tensor:
    """Return the mean of γ v over each set, from sums of v over the dimensions where γ is constant."""
    rest = tuple(dim for dim in dims if dim not in _constant_dims(weight, dims))
    weighted = part if weight is None else weight * part
    return total(weighted, rest) / set_size(shape, dims)


def _constant_dims(weight: Tensor | None, dims: tuple[int, ...]) -> tuple[int, ...]:
    """Return those dimensions of a set along which γ is constant."""
    return dims if weight is None else tuple(dim for dim in dims if weight.shape[dim] == 1)


def _register(name: str, schema: str, kernel: Callable[..., Any]) -> None:
    """Register an operator that runs the same formula on every backend."""
    _LIBRARY.define(name + schema)  # type: ignore[no-untyped-call]
    # vmap, new and old, looks through it, at the operators that it is made of.
    for key in ("CompositeExplicitAutograd", "FuncTorchBatchedDecomposition", "Batched"):
        _LIBRARY.impl(name, kernel, key)  # type: ignore[no-untyped-call]


_register(
    "normalise",
    "(Tensor x, Tensor? weight, Tensor? bias, int[] dims, float eps)"
    " -> (Tensor output, Tensor shift, Tensor residual, Tensor variance)",
    forward,
)
_register(
    "normalise_backward",
    "(Tensor dy, Tensor x, Tensor? weight, Tensor[] statistics, int[] dims, float eps)"
    " -> (Tensor dx, Tensor dweight, Tensor dbias)",
    backward,
)
