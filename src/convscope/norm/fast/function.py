"""Batch norm and its activation as one differentiable step that saves nothing but its input."""

import inspect
from typing import Any

import torch
from torch import Tensor

from convscope.norm.axes import legend
from convscope.norm.engine.statistics import total, widened
from convscope.norm.fast import operator
from convscope.norm.fast.activation import Piecewise


def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, shape: Piecewise
) -> tuple[Tensor, Tensor, Tensor]:
    """Return activation(γ (x − μ) / √(σ² + ε) + β), and mean and biased variance, outside the graph.

    Args:
        x: a batch (N, C, …) that ``choosing.takes`` takes.
        weight: γ (C,) or None.
        bias: β (C,) or None.
        eps: ε.
        shape: the activation.
    """
    y, shift, residual, variance = _BatchNorm.apply(x, weight, bias, eps, shape)  # type: ignore[no-untyped-call]
    return y, shift + residual, variance


class _BatchNorm(torch.autograd.Function):
    """x and three numbers a channel wait for the backward pass; the activation's mask is had from x again."""

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, shape: Piecewise
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return operator.batch_norm(x, weight, bias, eps, shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, bias, ctx.eps, ctx.shape = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, bias, *output[1:])

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if dy is None:
            return (None,) * 5
        x, weight, bias, *statistics = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient will be differentiated
            return (*_composed(dy, x, weight, bias, ctx), None, None)
        dx, *others = operator.batch_norm_backward(dy, x, weight, bias, statistics, ctx.eps, ctx.shape)
        of_parameters = (
            None if given is None else gradient.to(given.dtype)
            for gradient, given in zip(others, (weight, bias), strict=True)
        )
        return (dx, *of_parameters, None, None)


# PyTorch binds the arguments by this at every call: looking it up anew takes longer than a small batch.
_BatchNorm.forward.__signature__ = inspect.signature(_BatchNorm.forward)  # type: ignore[attr-defined]


def _composed(dy: Tensor, x: Any, weight: Any, bias: Any, ctx: Any) -> list[Tensor | None]:
    """The gradients with a graph of their own: the statistics again as functions of x.

    They are taken at aliases: at x, γ and β themselves hooks would run here, and again on what is returned.
    """
    x, weight, bias = (None if one is None else one.view_as(one) for one in (x, weight, bias))
    dims = tuple(dim for dim, axis in enumerate(legend(x.dim())) if axis != "C")
    count = x.numel() // x.shape[1]
    wide = widened(x)
    shift = (total(wide.detach(), dims) / count).flatten()
    deviation = wide - shift.view(-1, *(1,) * (x.dim() - 2))
    residual = total(deviation, dims) / count
    variance = (total(deviation.square(), dims) / count - residual.square()).clamp_min(0)
    statistics = (shift, residual.flatten(), variance.flatten())
    y = operator.composed_apply(x, weight, bias, statistics, ctx.eps, ctx.shape)
    given = [
        one if needed else None for one, needed in zip((x, weight, bias), ctx.needs_input_grad, strict=False)
    ]
    inputs = [one for one in given if one is not None]
    found = iter(torch.autograd.grad(y, inputs, dy, create_graph=True))
    return [None if one is None else next(found) for one in given]
