"""Normalisation by constants, the running averages: an affine map of each value on its own.

It is PyTorch's own operator, so that whatever looks for batch norm in a recording or an exported graph, to
fold it or to count it, finds it. Limit: PyTorch applies it as y = a x + b, which loses digits where the
running mean is far larger than the running standard deviation.
"""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from convscope.norm.engine.statistics import accumulated_in


def by_running(
    layer: _NormBase, x: Float[Tensor, "n c *s"], mask: Bool[Tensor, "..."] | None = None
) -> Float[Tensor, "n c *s"]:
    """Return γ (x − μ) / √(v + ε) + β with a layer's running mean μ and variance v, in the dtype of ``x``.

    Args:
        layer: whose γ, β, averages and ε.
        x: the batch.
        mask: True where a value counts; the others, whatever they hold, come out as 0 and get no gradient.

    Example:
        >>> import torch
        >>> layer = torch.nn.BatchNorm1d(1, eps=0.0)
        >>> by_running(layer, torch.tensor([[3.0]])).item()
        3.0
    """
    if mask is None:
        return _operator(layer, x, layer.running_mean, layer.running_var)
    x = x.masked_fill(~mask, 0)  # the gradient of γ would be NaN: 0 times what stood there
    return _operator(layer, x, layer.running_mean, layer.running_var).masked_fill(~mask, 0)


def of_nothing(layer: _NormBase, x: Float[Tensor, "0 c *s"]) -> Float[Tensor, "0 c *s"]:
    """Return an empty batch as it is, connected to γ and β, whose gradients are 0.

    Example:
        >>> import torch
        >>> of_nothing(torch.nn.BatchNorm1d(3), torch.zeros(0, 3)).shape
        torch.Size([0, 3])
    """
    return _operator(layer, x, None, None)


def _operator(layer: _NormBase, x: Tensor, mean: Tensor | None, variance: Tensor | None) -> Tensor:
    # PyTorch's operator wants γ, β and the averages in one dtype: float32 beside half-precision values.
    wide = accumulated_in(x.dtype)
    operands = (mean, variance, layer.weight, layer.bias)
    mean, variance, weight, bias = (None if operand is None else operand.to(wide) for operand in operands)
    return F.batch_norm(x, mean, variance, weight, bias, mean is None, 0.0, layer.eps)
