"""What the recorder has to know of an operator, looked up once per operator: its name and its arguments."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from convscope.tape.attribution import operator_name
from convscope.tape.calls import Ref

_FOLLOWS_FROM_DATA = {
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
    torch.Tag.inplace_view,
}


@dataclass(frozen=True)
class Operator:
    """An ATen operator's or a library operator's overload.

    Attributes:
        name: the same on every device; None for bookkeeping, which isn't recorded.
        overload: such as ``"aten.convolution.default"``.
        arguments: name and default of every argument, in schema order.
        written: positions of the arguments that it writes to.
        changes_values_only: an in-place operator over lists of tensors without a result: simulated tensors
            are the same before and after it.
        follows_from_forms: the shapes, strides and element types of its results follow from those of its
            arguments, which aren't changed.
    """

    name: str | None
    overload: str
    arguments: tuple[tuple[str, Any], ...]
    written: tuple[int, ...]
    changes_values_only: bool
    follows_from_forms: bool


@cache
def operator(func: Any) -> Operator:
    """Return what there is to know of a dispatched operator."""
    arguments = func._schema.arguments
    written = [i for i, item in enumerate(arguments) if item.alias_info and item.alias_info.is_write]
    name = operator_name(func)
    in_place_lists = name is not None and name.startswith("_foreach_") and name.endswith("_")
    return Operator(
        name,
        str(func),
        tuple((item.name, item.default_value) for item in arguments),
        tuple(written),
        changes_values_only=in_place_lists and not func._schema.returns,
        follows_from_forms=func.namespace in ("aten", "convscope")
        and not _FOLLOWS_FROM_DATA & set(func.tags)
        and not any(item.is_out for item in arguments),  # they may be resized
    )


def named_arguments(
    known: Operator, args: Any, kwargs: Any, value_of: Callable[[torch.Tensor], int]
) -> tuple[dict[str, Any], tuple[int, ...], list[torch.Tensor]]:
    """Return all arguments by schema name, tensors as references; the values referred to; the tensors.

    Args:
        known: the operator.
        args: as it was called.
        kwargs: the same.
        value_of: gives the index of a tensor's value.
    """
    tensors: list[torch.Tensor] = []
    given = len(args)
    arguments = {
        name: _referred(args[position] if position < given else kwargs.get(name, default), value_of, tensors)
        for position, (name, default) in enumerate(known.arguments)
    }
    inputs = [item for argument in arguments.values() for item in _references(argument)]
    return arguments, tuple(inputs), tensors


# Not a closure: one that calls itself is a cycle, and would keep tensors alive after the call.
def _referred(item: Any, value_of: Callable[[torch.Tensor], int], tensors: list[torch.Tensor]) -> Any:
    if isinstance(item, torch.Tensor):
        tensors.append(item)
        return Ref(value_of(item)) if item.layout is torch.strided else None
    if isinstance(item, list | tuple):
        return tuple([_referred(element, value_of, tensors) for element in item])
    return item


def _references(item: Any) -> list[int]:
    if type(item) is Ref:
        return [item.value]
    if type(item) is tuple:
        return [value for element in item for value in _references(element)]
    return []


def results(result: Any) -> list[torch.Tensor | None]:
    """Return an operator's results in order, lists flattened; None for those that weren't asked for."""
    if isinstance(result, torch.Tensor):
        return [result if result.layout is torch.strided else None]
    if not isinstance(result, tuple | list):
        return [None] if result is None else []
    return [leaf for item in result for leaf in results(item)]


def written_tensors(known: Operator, args: Any, kwargs: Any) -> list[torch.Tensor]:
    """Return the tensors that a call writes to."""
    given = (
        args[position] if position < len(args) else kwargs.get(known.arguments[position][0])
        for position in known.written
    )
    return [tensor for item in given for tensor in results(item) if tensor is not None]
