"""The core's four formulas as operators of the library ``convscope``.

========================  ====================================================================
operator                  result
========================  ====================================================================
``moments``               shift, residual, variance and count of every set (``statistics``)
``normalise``             γ (x − μ) / √(σ² + ε) + β
``normalise_sums``        Σ γ dy, Σ γ dy x̂, and the gradients of γ and β
``normalise_backward``    scale γ dy + slope (x − shift) + offset, the gradient of x
========================  ====================================================================

As operators they are one line each in a recording, a profile or an exported graph, where PyTorch's own batch
norm is one or two lines too; their arithmetic, dozens of small calls, stays out of sight. They run wherever
PyTorch does: block by block on real tensors (``kernels``), as shapes alone on simulated ones, as plain
formulas under vmap (``formulas``). ``function`` puts them together and differentiates them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.norm.engine import formulas, kernels, reductions
from convscope.norm.engine import statistics as blockwise
from convscope.norm.engine.statistics import Moments, accumulated_in, counted, total, widened

_LIBRARY = torch.library.Library("convscope", "FRAGMENT")  # type: ignore[no-untyped-call]


def moments(x: Tensor, mask: Tensor | None, dims: Sequence[int]) -> Moments:
    """Run ``convscope::moments``, see ``statistics.moments``."""
    return Moments(*torch.ops.convscope.moments(x, mask, dims))


def normalised(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    statistics: Sequence[Tensor],
    eps: float,
) -> Tensor:
    """Run ``convscope::normalise``, see ``formulas.normalised``."""
    return torch.ops.convscope.normalise(x, weight, bias, mask, statistics, eps)  # type: ignore[no-any-return]


def sums(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mask: Tensor | None,
    terms: Sequence[Tensor],
    dims: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run ``convscope::normalise_sums``, see ``formulas.sums``."""
    return torch.ops.convscope.normalise_sums(dy, x, weight, mask, terms, dims)  # type: ignore[no-any-return]


def gradient(
    dy: Tensor, x: Tensor, weight: Tensor | None, mask: Tensor | None, terms: Sequence[Tensor]
) -> Tensor:
    """Run ``convscope::normalise_backward``, see ``formulas.gradient``."""
    return torch.ops.convscope.normalise_backward(dy, x, weight, mask, terms)  # type: ignore[no-any-return]


def _normalise_undifferentiated(x: Tensor, *rest: Any) -> Tensor:
    """Normalise below ``function``; an exported program, which calls the operator itself, has no gradient."""
    if x.requires_grad and torch.is_grad_enabled():
        raise ConvscopeError(
            "the operator convscope::normalise given an input that requires gradients",
            "an exported program run for inference",
            "run it under torch.no_grad(), and train the network that it was exported from",
        )
    return kernels.normalised(x, *rest)


def _plain_moments(x: Tensor, mask: Tensor | None, dims: Sequence[int]) -> Moments:
    """The two-pass algorithm over the whole tensor: ``statistics.moments`` for vmap, which sees no blocks."""
    dims = tuple(dims)
    x, count = widened(x), counted(x, tuple(dims), mask)
    valid = torch.ones((), dtype=torch.bool, device=x.device) if mask is None else mask
    shift = total(x.where(valid, 0), dims) / count.clamp_min(1)
    deviation = (x - shift).where(valid, 0)
    residual = total(deviation, dims) / count.clamp_min(1)
    variance = total(deviation.square(), dims) / count.clamp_min(1) - residual.square()
    return Moments(shift, residual, variance.clamp_min(0), count)


def _shapes_of_moments(x: Tensor, mask: Tensor | None, dims: Sequence[int]) -> Moments:
    wide = accumulated_in(x.dtype)
    shape = [1 if dim in dims else size for dim, size in enumerate(x.shape)]
    counts = [] if mask is None else [1 if dim in dims else size for dim, size in enumerate(mask.shape)]
    shift, residual, variance = (x.new_empty(shape, dtype=wide) for _ in range(3))
    return Moments(shift, residual, variance, x.new_empty(counts, dtype=torch.int64))


def _shapes_of_sums(
    dy: Tensor,
    _x: Tensor,
    weight: Tensor | None,
    _mask: Tensor | None,
    terms: Sequence[Tensor],
    _dims: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    of_parameters = (0,) if weight is None else weight.shape
    shift = terms[0]
    shapes = (shift.shape, shift.shape, of_parameters, of_parameters)
    sum_u, sum_u_xhat, dweight, dbias = (dy.new_empty(shape, dtype=shift.dtype) for shape in shapes)
    return sum_u, sum_u_xhat, dweight, dbias


def _register(
    name: str,
    schema: str,
    kernel: Callable[..., Any],
    formula: Callable[..., Any],
    shapes: Callable[..., Any],
) -> None:
    """Register an operator: its kernel, its formula for both kinds of vmap, and its results' shapes."""
    _LIBRARY.define(name + schema)  # type: ignore[no-untyped-call]
    _LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    _LIBRARY.impl(name, shapes, "Meta")  # type: ignore[no-untyped-call]
    for key in ("FuncTorchBatchedDecomposition", "Batched"):
        _LIBRARY.impl(name, formula, key)  # type: ignore[no-untyped-call]


_register(
    "moments",
    "(Tensor x, Tensor? mask, int[] dims) -> (Tensor shift, Tensor residual, Tensor variance, Tensor count)",
    lambda x, mask, dims: blockwise.moments(x, tuple(dims), mask),
    _plain_moments,
    _shapes_of_moments,
)
_register(
    "normalise",
    "(Tensor x, Tensor? weight, Tensor? bias, Tensor? mask, Tensor[] statistics, float eps) -> Tensor",
    _normalise_undifferentiated,
    formulas.normalised,
    lambda x, *_: torch.empty_like(x),
)
_register(
    "normalise_sums",
    "(Tensor dy, Tensor x, Tensor? weight, Tensor? mask, Tensor[] terms, int[] dims)"
    " -> (Tensor sum_u, Tensor sum_u_xhat, Tensor dweight, Tensor dbias)",
    reductions.sums,
    formulas.sums,
    _shapes_of_sums,
)
_register(
    "normalise_backward",
    "(Tensor dy, Tensor x, Tensor? weight, Tensor? mask, Tensor[] terms) -> Tensor",
    kernels.gradient,
    formulas.gradient,
    lambda _dy, x, *_: torch.empty_like(x),
)
