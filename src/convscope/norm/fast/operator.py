"""Batch norm with its activation as three operators of the library ``convscope``, run by kernels.

=======================  ====================================================================================
operator                 result
=======================  ====================================================================================
``batch_norm``           y = activation(γ (x − μ) / √(σ² + ε) + β); shift, residual and variance (C,)
``batch_norm_apply``     the same y to the last bit, from the statistics that ``batch_norm`` found
``batch_norm_backward``  the gradients of x, γ and β
=======================  ====================================================================================

They are for what ``choosing.takes`` takes; the rest runs by ``engine``. As operators they are one line each
in a profile, and ``lean`` can make a result again. An activation is (slope, low, high), see ``activation``.
"""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from convscope.norm.axes import along, legend
from convscope.norm.engine import formulas
from convscope.norm.fast.activation import Piecewise

_LIBRARY = torch.library.Library("convscope", "FRAGMENT")  # type: ignore[no-untyped-call]


def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, shape: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run ``convscope::batch_norm``.

    Args:
        x: the batch (N, C, …).
        weight: γ (C,) or None for 1.
        bias: β (C,) or None for 0.
        eps: ε.
        shape: of the activation, :class:`Piecewise`.

    Returns:
        y like x; shift, residual and biased variance (C,) in float32, the mean being shift + residual.
    """
    return torch.ops.convscope.batch_norm(x, weight, bias, eps, shape)  # type: ignore[no-any-return]


def batch_norm_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    statistics: Sequence[Tensor],
    eps: float,
    shape: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Run ``convscope::batch_norm_backward``: the gradients of x, γ and β, the latter in float32."""
    return torch.ops.convscope.batch_norm_backward(  # type: ignore[no-any-return]
        dy, x, weight, bias, statistics, eps, shape
    )


def _kernels_for(x: Tensor) -> ModuleType:
    if x.is_cuda:
        from convscope.norm.fast import gpu

        return gpu
    from convscope.norm.fast.cpu import run

    return run


def _forward(x: Tensor, weight: Any, bias: Any, eps: float, shape: Sequence[float]) -> Any:
    return _kernels_for(x).forward(x, weight, bias, eps, Piecewise(*shape))


def _apply(x: Tensor, weight: Any, bias: Any, statistics: Any, eps: float, shape: Sequence[float]) -> Any:
    return _kernels_for(x).apply(x, weight, bias, statistics, eps, Piecewise(*shape))


def _backward(
    dy: Tensor, x: Tensor, weight: Any, bias: Any, statistics: Any, eps: float, shape: Sequence[float]
) -> Any:
    return _kernels_for(x).backward(dy, x, weight, bias, statistics, eps, Piecewise(*shape))


def composed_apply(
    x: Tensor, weight: Any, bias: Any, statistics: Sequence[Tensor], eps: float, shape: Sequence[float]
) -> Tensor:
    """Return y by formulas that can be differentiated as often as wanted, by statistics (C,) too."""
    axes = legend(x.dim())
    if weight is None and bias is not None:
        weight = torch.ones_like(bias)
    if bias is None and weight is not None:
        bias = torch.zeros_like(weight)
    shift, residual, variance = (along(one, axes) for one in statistics)
    terms = (shift, residual, variance)
    u = formulas.normalised(x, along(weight, axes), along(bias, axes), None, terms, eps)
    return Piecewise(*shape)(u)


def _composed_backward(
    dy: Tensor, x: Tensor, weight: Any, bias: Any, statistics: Any, eps: float, shape: Any
) -> Any:
    """The gradients by formulas, for vmap, which sees no kernels."""
    axes = legend(x.dim())
    dims = tuple(dim for dim, axis in enumerate(axes) if axis != "C")
    shift, residual, variance = (along(one, axes) for one in statistics)
    u = composed_apply(x, weight, bias, statistics, eps, (1.0, -torch.inf, torch.inf))
    dy = dy * Piecewise(*shape).derivative(u)
    scale = torch.rsqrt(variance + eps)
    gamma = torch.ones_like(statistics[0]) if weight is None else weight.to(scale.dtype)
    sums = formulas.sums(dy, x, along(gamma, axes), None, (shift, residual, scale), dims)
    count = x.numel() // x.shape[1]
    slope = -scale.square() * sums[1] / count
    offset = -scale * sums[0] / count - residual * slope
    dx = formulas.gradient(dy, x, along(gamma, axes), None, (shift, scale, slope, offset))
    return dx, sums[2].view(-1), sums[3].view(-1)


def _statistics_like(x: Tensor) -> list[Tensor]:
    return [x.new_empty(x.shape[1], dtype=torch.float32) for _ in range(3)]


def _register(name: str, schema: str, kernel: Callable[..., Any], shapes: Callable[..., Any]) -> None:
    _LIBRARY.define(name + schema)  # type: ignore[no-untyped-call]
    _LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    _LIBRARY.impl(name, shapes, "Meta")  # type: ignore[no-untyped-call]


_register(
    "batch_norm",
    "(Tensor x, Tensor? weight, Tensor? bias, float eps, float[] shape)"
    " -> (Tensor y, Tensor shift, Tensor residual, Tensor variance)",
    _forward,
    lambda x, *_: (torch.empty_like(x), *_statistics_like(x)),
)
_register(
    "batch_norm_apply",
    "(Tensor x, Tensor? weight, Tensor? bias, Tensor[] statistics, float eps, float[] shape) -> Tensor",
    _apply,
    lambda x, *_: torch.empty_like(x),
)
_register(
    "batch_norm_backward",
    "(Tensor dy, Tensor x, Tensor? weight, Tensor? bias, Tensor[] statistics, float eps, float[] shape)"
    " -> (Tensor dx, Tensor dweight, Tensor dbias)",
    _backward,
    lambda _dy, x, *_: (torch.empty_like(x), *_statistics_like(x)[:2]),
)
for _key in ("FuncTorchBatchedDecomposition", "Batched"):
    _LIBRARY.impl("batch_norm_backward", _composed_backward, _key)  # type: ignore[no-untyped-call]
