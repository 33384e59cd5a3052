"""Activations as products φ(x) = x · gate(x), and the gates by autograd's backward operators.

The gate says how much of x passes: 0 or 1 for ReLU, between them for smooth activations. Under the rule
``gated`` it is frozen, as the recorded switch that it is for ReLU, and the rest is linear.

====================  ==========================================================================
activation            gate(x)
====================  ==========================================================================
SiLU                  σ(x)
GELU                  Φ(x), the normal distribution function, or its tanh approximation
Hardswish             min(max(x + 3, 0), 6) / 6
Mish                  tanh(softplus(x))
ReLU6, hardtanh       φ(x) / x: 1 inside the bounds, bound / x outside
leaky, P- and RReLU   1 for x > 0, else the slope
ELU, CELU, SELU       φ(x) / x, at 0 its limit, the slope there; in place, x is read off φ(x), so that it
                      ends at −17 in float32
shrinkages            φ(x) / x: 0 inside, 1 (hard) or 1 − λ / |x| (soft) outside
threshold to 0        1[x > threshold]
tanh                  tanh(x) / x; x is read off tanh(x), so that it ends at 9 in float32
====================  ==========================================================================

Gates of half-precision values are computed in float32.

Limits: sigmoid and softplus aren't 0 at 0, and have no gate.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Gate = Callable[..., Tensor]


def hardtanh(x: Float[Tensor, "..."], low: float, high: float) -> Float[Tensor, "..."]:
    """Return min(max(x, low), high) / x, for low ≤ 0 ≤ high; at 0 its limit, or 0 if a bound is 0.

    Example:
        >>> hardtanh(torch.tensor([0.0, 3.0, 12.0]), 0.0, 6.0).tolist()
        [0.0, 1.0, 0.5]
    """
    at_zero = 0.0 if 0 in (low, high) else 1.0
    return _quotient(x.clamp(low, high), x, at_zero)


def _quotient(value: Tensor, x: Tensor, at_zero: float) -> Tensor:
    return torch.where(x == 0, at_zero, value / x)


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "tanh":
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * torch.erfc(-x / math.sqrt(2))


def _hardswish(x: Tensor) -> Tensor:
    return (x + 3).clamp(0, 6) / 6


def _mish(x: Tensor) -> Tensor:
    return torch.tanh(F.softplus(x))


def _leaky_relu(x: Tensor, slope: float, _is_result: bool = False) -> Tensor:
    """The sign of the result is that of x."""
    return torch.full_like(x, slope).masked_fill_(x > 0, 1.0)


def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    return torch.where(x > 0, 1.0, weight.to(x.dtype))


def _rrelu(
    x: Tensor, _noise: Tensor, lower: float, upper: float, _training: bool, _is_result: bool = False
) -> Tensor:
    return _leaky_relu(x, (lower + upper) / 2)


def _elu(alpha: float, scale: float, input_scale: float, is_result: bool, x: Tensor) -> Tensor:
    if is_result:
        nearly_one = 1 - torch.finfo(x.dtype).eps / 2
        negative = torch.log1p((x / (alpha * scale)).clamp(min=-nearly_one)) / input_scale
        value, x = x, torch.where(x > 0, x / scale, negative)
    else:
        value = torch.where(x > 0, x * scale, alpha * scale * torch.expm1(x * input_scale))
    return _quotient(value, x, alpha * scale * input_scale).nan_to_num(nan=0.0)


def _softshrink(x: Tensor, bound: float) -> Tensor:
    return (1 - bound / x.abs()).clamp(min=0)


def _hardshrink(x: Tensor, bound: float) -> Tensor:
    return (x.abs() > bound).to(x.dtype)


def _threshold(x: Tensor, threshold: float) -> Tensor:
    return (x > threshold).to(x.dtype)


def _tanh(result: Tensor) -> Tensor:
    nearly_one = 1 - torch.finfo(result.dtype).eps / 2
    return _quotient(result, torch.atanh(result.clamp(-nearly_one, nearly_one)), 1.0)


BACKWARDS: dict[str, Gate] = {
    "silu_backward": torch.sigmoid,
    "gelu_backward": _gelu,
    "hardswish_backward": _hardswish,
    "mish_backward": _mish,
    "hardtanh_backward": hardtanh,
    "leaky_relu_backward": _leaky_relu,
    "_prelu_kernel_backward": _prelu,
    "rrelu_with_noise_backward": _rrelu,
    "elu_backward": _elu,
    "softshrink_backward": _softshrink,
    "hardshrink_backward": _hardshrink,
    "threshold_backward": _threshold,
    "tanh_backward": _tanh,
}
"""The gate from the arguments that a backward operator has after the signal, by its name."""


def gated_signal(op: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return max(g, 0) · gate(x) from the arguments of an activation's backward operator.

    Args:
        op: the backward operator, one of :data:`BACKWARDS`.
        args: what it was given, the signal g first.
        kwargs: likewise.
    """
    settings = [wide(argument) for argument in args[1:]]
    signal: Tensor = args[0].clamp(min=0)
    return signal * BACKWARDS[op](*settings, **kwargs).to(signal.dtype)


def wide(argument: Any) -> Any:
    """Return an argument, in float32 if it is a tensor in half precision."""
    half = isinstance(argument, Tensor) and argument.dtype in (torch.float16, torch.bfloat16)
    return argument.float() if half else argument
