"""φ(x) / x, written out for every activation, for the oracle."""

from collections.abc import Callable

import torch
from torch import Tensor


class NoRuleError(Exception):
    """A signal has come to an operator for which the rule says nothing."""


Gate = Callable[..., Tensor]


def _one_where(condition: Tensor) -> Tensor:
    return condition.to(torch.float64)


def _quotient(phi: Tensor, x: Tensor, at_zero: float) -> Tensor:
    return torch.where(x == 0, at_zero, phi / torch.where(x == 0, 1.0, x))


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "tanh":
        return (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2
    return torch.erfc(-x / 2**0.5) / 2


def hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """Between its bounds 1, beyond them the bound's share of x."""
    if min_val > 0 or max_val < 0:
        raise NoRuleError("hardtanh that isn't 0 at 0")
    at_zero = 1.0 if min_val < 0 < max_val else 0.0
    return _quotient(
        torch.minimum(torch.maximum(x, x.new_tensor(min_val)), x.new_tensor(max_val)), x, at_zero
    )


def _leaky(x: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return torch.where(x > 0, torch.ones_like(x), negative_slope)


def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    slopes = weight.detach().reshape([-1] + [1] * (x.dim() - 2))
    return torch.where(x > 0, torch.ones_like(x), slopes.expand_as(x))


def _elu(x: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    return torch.where(x > 0, 1.0, alpha * _quotient(torch.expm1(x), x, 1.0))


def _celu(x: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    return torch.where(x > 0, 1.0, _quotient(torch.expm1(x / alpha), x / alpha, 1.0))


def _selu(x: Tensor, inplace: bool = False) -> Tensor:
    return 1.0507009873554804934193349852946 * _elu(x, 1.6732632423543772848170429916717)


def _threshold(x: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    if value != 0:
        raise NoRuleError("threshold with another value than 0")
    return _one_where(x > threshold)


GATES: dict[str, Gate] = {
    "silu": lambda x, inplace=False: 1 / (1 + torch.exp(-x)),
    "gelu": _gelu,
    "hardswish": lambda x, inplace=False: torch.minimum((x + 3).clamp(min=0), x.new_tensor(6.0)) / 6,
    "mish": lambda x, inplace=False: torch.tanh(torch.log1p(torch.exp(x))),
    "relu6": lambda x, inplace=False: hardtanh(x, 0.0, 6.0),
    "hardtanh": hardtanh,
    "leaky_relu": _leaky,
    "prelu": _prelu,
    "rrelu": lambda x, lower=1 / 8, upper=1 / 3, *_, **__: _leaky(x, (lower + upper) / 2),
    "elu": _elu,
    "celu": _celu,
    "selu": _selu,
    "threshold": _threshold,
    "hardshrink": lambda x, lambd=0.5: _one_where(x.abs() > lambd),
    "softshrink": lambda x, lambd=0.5: torch.where(x.abs() > lambd, 1 - lambd / x.abs(), 0.0),
    "tanh": lambda x: _quotient(torch.tanh(x), x, 1.0),
    "softsign": lambda x: 1 / (1 + x.abs()),
}
"""By the name of the function without the underscore that says in place."""
