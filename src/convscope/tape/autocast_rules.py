"""How autocast carries each of its policies out: what is cast, to which dtype, before an operator runs.

Source: ``torch/include/ATen/autocast_mode.h`` of PyTorch 2.13.0 (``CastPolicy``, ``prioritize``).
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from convscope.tape.autocast_policies import Policy

Cast = Callable[[Any, torch.dtype], Any]
"""Returns an argument in a dtype if it is an eligible tensor or a list of such, else as it is."""
Rule = Callable[[Cast, Any, Any, Any], Any]
"""Called with a cast, an ATen operator, its positional and its keyword arguments; returns its result."""


def eligible(tensor: torch.Tensor) -> bool:
    """Return whether autocast casts a tensor: a floating one, double apart."""
    return tensor.dtype.is_floating_point and tensor.dtype is not torch.float64


def _cast_all(cast: Cast, operator: Any, args: Any, kwargs: Any, dtype: torch.dtype) -> Any:
    return operator(*(cast(value, dtype) for value in args), **{k: cast(v, dtype) for k, v in kwargs.items()})


def _lower(cast: Cast, operator: Any, args: Any, kwargs: Any) -> Any:
    return _cast_all(cast, operator, args, kwargs, torch.get_autocast_dtype("cpu"))


def _fp32(cast: Cast, operator: Any, args: Any, kwargs: Any) -> Any:
    return _cast_all(cast, operator, args, kwargs, torch.float32)


def _fp32_output(_: Cast, operator: Any, args: Any, kwargs: Any) -> Any:
    given = _by_name(operator, args, kwargs)
    if eligible(args[0]) and given.get("dtype") is None:
        given["dtype"] = torch.float32
    return operator(**given)


def _fp32_norm(_: Cast, operator: Any, args: Any, kwargs: Any) -> Any:
    given = {"p": 2, **_by_name(operator, args, kwargs)}
    given["dtype"] = torch.float32 if eligible(args[0]) else args[0].dtype
    if operator is torch.ops.aten.norm.Scalar:
        return torch.ops.aten.norm.ScalarOpt_dtype(**given)
    return torch.ops.aten.norm.ScalarOpt_dim_dtype(**{"keepdim": False, **given})


def _promote(cast: Cast, operator: Any, args: Any, kwargs: Any) -> Any:
    dtype = torch.get_autocast_dtype("cpu")
    for tensor in _tensors((*args, *kwargs.values())):
        if not eligible(tensor):
            continue
        if torch.float32 in (dtype, tensor.dtype):
            dtype = torch.float32
        elif tensor.dtype is not dtype:
            raise RuntimeError(f"autocast to {dtype} meets a tensor in {tensor.dtype}")
    return _cast_all(cast, operator, args, kwargs, dtype)


def _banned(_: Cast, operator: Any, __: Any, ___: Any) -> Any:
    raise RuntimeError(
        f"{operator._schema.name.removeprefix('aten::')} is unsafe to autocast: use "
        "binary_cross_entropy_with_logits, without the sigmoid before it"
    )


RULES: dict[Policy, Rule] = {
    "lower": _lower,
    "fp32": _fp32,
    "fp32-output": _fp32_output,
    "fp32-norm": _fp32_norm,
    "promote": _promote,
    "banned": _banned,
}


def _by_name(operator: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    names = (argument.name for argument in operator._schema.arguments)
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
