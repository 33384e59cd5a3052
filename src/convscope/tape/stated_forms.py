"""Forms of results that are plain to see, so that PyTorch needn't simulate the operator at all.

Elementwise operators over tensors of one form return that form; batch norm returns its input's form, and
vectors of one number per channel. PyTorch simulates these in Python, by the operators that they consist of,
which takes a third of the time of a recording. Anything unusual, such as gaps between elements, broadcasts
or mixed element types, is left to PyTorch.

The tests compare the results with those of PyTorch's own simulation.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

Tensors = list[torch.Tensor]


@dataclass(frozen=True)
class Fresh:
    """A result with a storage of its own."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


Stated = Fresh | tuple[Fresh | None, ...] | None


def stated(overload: str, arguments: dict[str, Any], tensors: Tensors) -> Stated:
    """Return the forms of an operator's results (a tuple if it has several), or None if they aren't plain.

    Args:
        overload: such as ``"aten.silu_backward.default"``.
        arguments: by schema name.
        tensors: those among them, in schema order.
    """
    rule = _RULES.get(overload)
    if (
        rule is None
        or not tensors
        or not _is_dense(tensors[0])
        or not all(map(_is_plain, arguments.values()))
    ):
        return None
    return rule(arguments, tensors)


def _is_plain(argument: Any) -> bool:
    """Whether an argument is what a network gives: complex factors make results complex."""
    return not isinstance(argument, complex) and (
        not isinstance(argument, str) or argument in ("none", "tanh")
    )


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether a tensor lies without gaps in one of the usual orders, which its strides alone tell."""
    shape = tuple(tensor.shape)
    if 0 in shape:
        return False
    if tensor.stride() == _strides(shape, range(len(shape))):
        return True
    channels_last = (0, *range(2, len(shape)), 1)
    return len(shape) in (4, 5) and 1 not in shape and tensor.stride() == _strides(shape, channels_last)


def _strides(shape: tuple[int, ...], order: Iterable[int]) -> tuple[int, ...]:
    """Strides of a tensor whose axes lie in this order, the outermost first."""
    strides, step = [0] * len(shape), 1
    for axis in reversed(tuple(order)):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)


def _form(tensor: torch.Tensor) -> Fresh:
    return Fresh(tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _elementwise(_: dict[str, Any], tensors: Tensors) -> Stated:
    first = _form(tensors[0])
    alike = all(_form(tensor) == first for tensor in tensors[1:])
    return first if alike and first.dtype.is_floating_point else None


def _batch_norm(arguments: dict[str, Any], tensors: Tensors) -> Stated:
    if arguments["training"] is not True or not _fit(tensors[0], tensors[1:]):
        return None
    x = _form(tensors[0])
    channels = Fresh((x.shape[1],), (1,), x.dtype)
    return x, channels, channels


def _batch_norm_backward(arguments: dict[str, Any], tensors: Tensors) -> Stated:
    given, x = tensors[:2]
    if arguments["train"] is not True or _form(given) != _form(x) or not _fit(x, tensors[2:]):
        return None
    channels = Fresh((x.shape[1],), (1,), x.dtype)
    forms = (_form(x), channels, channels)
    return tuple(form if asked else None for form, asked in zip(forms, arguments["output_mask"]))


def _fit(x: torch.Tensor, vectors: Tensors) -> bool:
    """Whether a batch norm's vectors have one number per channel, in the input's own dtype (not a half)."""
    return (
        x.dtype in (torch.float32, torch.float64)
        and x.dim() >= 2
        and all(vector.dtype == x.dtype and tuple(vector.shape) == (x.shape[1],) for vector in vectors)
    )


_ELEMENTWISE = """
    relu.default silu.default gelu.default sigmoid.default tanh.default hardswish.default
    threshold_backward.default silu_backward.default gelu_backward.default sigmoid_backward.default
    hardswish_backward.default hardsigmoid_backward.default hardtanh_backward.default
    mul.Tensor add.Tensor sub.Tensor
"""
_RULES: dict[str, Callable[[dict[str, Any], Tensors], Stated]] = {
    **{f"aten.{name}": _elementwise for name in _ELEMENTWISE.split()},
    "aten.native_batch_norm.default": _batch_norm,
    "aten.native_batch_norm_backward.default": _batch_norm_backward,
}
