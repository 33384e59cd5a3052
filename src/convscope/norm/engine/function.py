"""The one normalisation core: forward in four steps, and its backward pass derived by hand.

Over every set of m values that share statistics (``axes`` says which):

1. mean:       μ = Σ x / m
2. variance:   σ² = Σ (x − μ)² / m
3. normalise:  x̂ = r (x − μ),  r = 1 / √(σ² + ε)
4. affine:     y = γ x̂ + β

All four depend on x, and the gradient goes back through all four. Through 4: u = γ dy is the gradient of
x̂. Through 3 and 2: dσ² = −½ r³ Σ u (x − μ). Through 3 and 1: dμ = −r Σ u; what dσ² would add to it vanishes,
since Σ (x − μ) = 0. Their sum, with the terms gathered, is the minimal form:

    dx = r (u − Σu / m − x̂ Σ(u x̂) / m),      dγ = Σ dy x̂,      dβ = Σ dy

The sums over sets and over parameters share one pass; then dx = A γ dy + B (x − shift) + D with a number A,
B, D a set. What waits for the backward pass is the input and
four numbers a set; x̂ is computed again from x − shift, never from the difference of large products.

When the gradient itself is to be differentiated, the statistics are computed again as functions of x and the
same formulas run under autograd (the composed form), so that derivatives of any order are right.

With a mask, only what it marks counts and is normalised; the rest, whatever stands there, gives 0 and gets 0.
Shared between processes (:class:`Exchange`), the statistics are those of the whole batch, and the sums of the
backward pass are added up over all processes before they are divided by the total count.
"""

import inspect
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from convscope.norm.engine import formulas, operator
from convscope.norm.engine.statistics import Moments, total, widened


class Exchange(Protocol):
    """How processes that share a batch pool what each of them has found."""

    def moments(self, local: Moments) -> Moments:
        """Return the moments of all processes' values; the same on each of them."""

    def total(self, share: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the sum of all processes' shares, differentiable as often as wanted."""


class Normalised(NamedTuple):
    """A normalised tensor and the statistics that normalised it.

    Attributes:
        output: shape and dtype of the input, differentiable.
        mean: the means, with size 1 in the dimensions averaged over; outside the graph.
        variance: the biased variances, likewise.
        count: how many values share each mean.
    """

    output: Float[Tensor, "..."]
    mean: Float[Tensor, "*sets"]
    variance: Float[Tensor, "*sets"]
    count: Int[Tensor, "*sets"]  # type: ignore[assignment]  # hides tuple.count


def normalise(
    x: Float[Tensor, "..."],
    weight: Float[Tensor, "..."] | None,
    bias: Float[Tensor, "..."] | None,
    dims: tuple[int, ...],
    eps: float,
    mask: Bool[Tensor, "..."] | None = None,
) -> Normalised:
    """Return γ (x − μ) / √(σ² + ε) + β, with μ and σ² over some dimensions of ``x`` itself.

    Args:
        x: floating point, any layout; half precision is computed in float32 and returned in half.
        weight: γ, of the rank of ``x`` and with size 1 wherever it broadcasts; None for 1.
        bias: β, in the shape and dtype of ``weight``; None for 0.
        dims: the dimensions that share statistics (``Member.dims``).
        eps: ε, added to the variance.
        mask: True where a value counts, of the rank of ``x`` and broadcastable to it; None to count all.

    Returns:
        :class:`Normalised`; the output keeps the memory layout of ``x`` and is 0 where the mask is False.

    Source:
        Ioffe and Szegedy, "Batch Normalization", arXiv 1502.03167, algorithm 1 and the equations after it.

    Example:
        >>> out = normalise(torch.tensor([[1.0], [3.0]]), None, None, dims=(0,), eps=0.0)
        >>> out.output.flatten().tolist(), out.mean.item(), out.variance.item(), out.count.item()
        ([-1.0, 1.0], 2.0, 1.0, 2)
    """
    found = statistics(x, dims, mask)
    output = normalise_by(x, weight, bias, found, dims, eps, mask)
    return Normalised(output, found.mean, found.variance, found.count)


@torch.no_grad()
def statistics(
    x: Float[Tensor, "..."],
    dims: tuple[int, ...],
    mask: Bool[Tensor, "..."] | None = None,
    exchange: Exchange | None = None,
) -> Moments:
    """Return the moments that normalise ``x``, outside the graph; for :func:`normalise_by`.

    Args:
        x: as in :func:`normalise`, as are the dimensions and the mask.
        dims: the dimensions that share statistics.
        mask: True where a value counts.
        exchange: pools them with those of other processes; None for one process.
    """
    local = operator.moments(x, mask, dims)
    return local if exchange is None else exchange.moments(local)


def normalise_by(  # one argument for each symbol of the formula
    x: Float[Tensor, "..."],
    weight: Float[Tensor, "..."] | None,
    bias: Float[Tensor, "..."] | None,
    found: Moments,
    dims: tuple[int, ...],
    eps: float,
    mask: Bool[Tensor, "..."] | None = None,
    exchange: Exchange | None = None,
) -> Float[Tensor, "..."]:
    """Return γ (x − μ) / √(σ² + ε) + β by the statistics of ``x`` itself, found beforehand.

    The gradient takes into account that μ and σ² depend on ``x``. In between, γ and β may be made functions
    of the statistics, as batch renormalisation does.

    Args:
        x: as in :func:`normalise`, as are γ, β, the dimensions, ε and the mask.
        weight: γ or None.
        bias: β or None.
        found: what :func:`statistics` returned for this ``x``, mask and exchange.
        dims: the dimensions that share statistics.
        eps: ε.
        mask: True where a value counts.
        exchange: as it was for the statistics.
    """
    if weight is None and bias is not None:
        weight = torch.ones_like(bias)
    output: Tensor = _Normalise.apply(x, weight, bias, mask, *found, dims, eps, exchange)  # type: ignore[no-untyped-call]
    return output


class _Normalise(torch.autograd.Function):
    """The four steps, saving the input and its statistics; the module docstring derives the gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, mask: Tensor | None, *rest: Any
    ) -> Tensor:
        shift, residual, variance, _, _, eps, _ = rest
        return operator.normalised(x, weight, bias, mask, (shift, residual, variance), eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _output: Tensor) -> None:
        x, weight, _, mask, *found, ctx.dims, ctx.eps, ctx.exchange = inputs
        ctx.save_for_backward(x, weight, mask, *found)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mask, *found = ctx.saved_tensors
        # The gradient will be differentiated: the composed form.
        composed = torch.is_grad_enabled()
        here = _again(x, mask, Moments(*found), ctx.dims, ctx.exchange) if composed else Moments(*found)
        formula = formulas if composed else operator
        scale = torch.rsqrt(here.variance + ctx.eps)
        sum_u, sum_u_xhat, dweight, dbias = formula.sums(
            dy, x, weight, mask, (here.shift, here.residual, scale), ctx.dims
        )
        dx = None
        if ctx.needs_input_grad[0] or ctx.exchange is not None:
            mean_u, mean_u_xhat = (
                whole / here.count.clamp_min(1) for whole in _pooled(ctx.exchange, sum_u, sum_u_xhat)
            )
            # The minimal form, with its terms gathered: dx = scale γ dy + slope (x − shift) + offset.
            slope = -scale.square() * mean_u_xhat
            offset = -scale * mean_u - here.residual * slope
            dx = formula.gradient(dy, x, weight, mask, (here.shift, scale, slope, offset))
        of_parameters = (
            part.to(weight.dtype) if needed else None
            for part, needed in zip((dweight, dbias), ctx.needs_input_grad[1:3], strict=True)
        )
        return (dx, *of_parameters, *(None,) * 8)


# PyTorch binds the arguments by this at every call: looking it up anew takes longer than a small block.
_Normalise.forward.__signature__ = inspect.signature(_Normalise.forward)  # type: ignore[attr-defined]


def _again(
    x: Tensor,
    mask: Tensor | None,
    found: Moments,
    dims: tuple[int, ...],
    exchange: Exchange | None,
) -> Moments:
    """Return the same moments as functions of ``x``, but for the shift: any number near the mean will do."""
    deviation = widened(x) - found.shift
    deviation = deviation if mask is None else deviation.masked_fill(~mask, 0)
    count = found.count.clamp_min(1)
    first, second = _pooled(exchange, total(deviation, dims), total(deviation.square(), dims))
    residual = first / count
    variance = second / count - residual.square()
    return Moments(found.shift, residual, variance.clamp_min(0), found.count)


def _pooled(exchange: Exchange | None, *shares: Tensor) -> tuple[Tensor, ...]:
    """Return the sums of all processes' shares, in one exchange; those of one process are its shares."""
    return shares if exchange is None else exchange.total(torch.stack(shares)).unbind()
