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

The sums over sets and over parameters share one pass: dy and dy (x − μ) are summed over the dimensions along
which γ is constant (all of them in batch norm), and the rest is arithmetic on the small results. What waits
for the backward pass is the input, which the layer before holds anyway, and three numbers a set; x̂ is
computed again from x − μ, never from the difference of large products.

When the gradient itself is to be differentiated, the statistics are computed again as functions of x and the
same formula runs under autograd (the composed form), so that derivatives of any order are right.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.norm import operator
from convscope.norm.statistics import moments


class Normalised(NamedTuple):
    """A normalised tensor and the statistics that normalised it.

    Attributes:
        output: shape and dtype of the input, differentiable.
        mean: the means, with size 1 in the dimensions averaged over; outside the graph.
        variance: the biased variances, likewise.
    """

    output: Float[Tensor, "..."]
    mean: Float[Tensor, "*sets"]
    variance: Float[Tensor, "*sets"]


def normalise(
    x: Float[Tensor, "..."],
    weight: Float[Tensor, "..."] | None,
    bias: Float[Tensor, "..."] | None,
    dims: tuple[int, ...],
    eps: float,
) -> Normalised:
    """Return γ (x − μ) / √(σ² + ε) + β, with μ and σ² over some dimensions of ``x`` itself.

    Args:
        x: floating point, any layout; half precision is computed in float32 and returned in half.
        weight: γ, of the rank of ``x`` and with size 1 wherever it broadcasts; None for 1.
        bias: β, in the shape and dtype of ``weight``; None for 0.
        dims: the dimensions that share statistics (``Member.dims``).
        eps: ε, added to the variance.

    Returns:
        :class:`Normalised`; the output keeps the memory layout of ``x``.

    Source:
        Ioffe and Szegedy, "Batch Normalization", arXiv 1502.03167, algorithm 1 and the equations after it.

    Example:
        >>> out = normalise(torch.tensor([[1.0], [3.0]]), None, None, dims=(0,), eps=0.0)
        >>> out.output.flatten().tolist(), out.mean.item(), out.variance.item()
        ([-1.0, 1.0], 2.0, 1.0)
    """
    if weight is None and bias is not None:
        weight = torch.ones_like(bias)
    output, shift, residual, variance = _Normalise.apply(x, weight, bias, dims, eps)  # type: ignore[no-untyped-call]
    return Normalised(output, shift + residual, variance)


class _Normalise(torch.autograd.Function):
    """The four steps, saving the input and its statistics; the module docstring derives the gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, dims: tuple[int, ...], eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return torch.ops.convscope.normalise(x, weight, bias, dims, eps)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, _, ctx.dims, ctx.eps = inputs
        ctx.save_for_backward(x, weight, *output[1:])
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return (None,) * 5
        x, weight, *statistics = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient will be differentiated: the composed form
            gradients = operator.backward(dy, x, weight, moments(x, ctx.dims)[:3], ctx.dims, ctx.eps)
        else:
            gradients = torch.ops.convscope.normalise_backward(dy, x, weight, statistics, ctx.dims, ctx.eps)
        wanted = zip(gradients, ctx.needs_input_grad, strict=False)
        return (*(gradient if needed else None for gradient, needed in wanted), None, None)
