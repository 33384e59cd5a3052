"""Group norms and instance norms on the tape: of how many values their statistics are."""

import math
from collections.abc import Callable

from convscope.checkup.observed import GroupCall
from convscope.tape import OperatorCall, Tape

_Sizes = tuple[int, int]
"""Groups, and values per group."""


def group_calls(tape: Tape | None) -> tuple[GroupCall, ...]:
    """Return the calls of group norms and instance norms on a tape, in order.

    Example:
        >>> from torch import nn
        >>> from convscope.tape import record
        >>> group_calls(record(nn.GroupNorm(2, 6), (4, 6, 3, 3)))
        (GroupCall(address='self#1', path='self', num_groups=2, values_per_group=27),)
    """
    found = []
    for call in () if tape is None else tape.calls:
        sizes = _SIZES[call.op](tape, call) if tape is not None and call.op in _SIZES else None
        if sizes is not None:
            found.append(GroupCall(str(call.address.module), call.address.path, *sizes))
    return tuple(found)


def _of_group_norm(_: Tape, call: OperatorCall) -> _Sizes | None:
    groups = int(call.arguments["group"])
    return groups, int(call.arguments["C"]) * int(call.arguments["HxW"]) // groups


def _of_moments(tape: Tape, call: OperatorCall) -> _Sizes | None:
    """Convscope's layers: a group norm's input is (N, groups, C / groups, …), an instance norm's (N, C, …).

    A batch norm's statistics are of the first axis too. Of three axes it could be a layer norm of tokens;
    nothing is lost by leaving those out, for these layers refuse single values themselves.
    """
    value, dims = call.tensor("x"), call.arguments["dims"]
    if value is None:
        return None
    shape = tape.values[value].shape
    if len(shape) < 4 or tuple(dims) != tuple(range(2, len(shape))):
        return None
    return shape[1], math.prod(shape[2:])


def _of_instance_norm(tape: Tape, call: OperatorCall) -> _Sizes | None:
    """PyTorch's instance norm: a batch norm of one sample with the channels of all, without statistics."""
    value = call.tensor("input")
    if value is None or not call.arguments.get("training") or tape.values[value].shape[0] != 1:
        return None
    view = tape.producer(value)
    if view is None or view.op not in ("view", "reshape", "_unsafe_view") or not view.inputs:
        return None
    before, shape = tape.values[view.inputs[0]].shape, tape.values[value].shape
    if before[2:] != shape[2:] or math.prod(before[:2]) != shape[1]:
        return None
    return before[1], math.prod(shape[2:])


_SIZES: dict[str, Callable[[Tape, OperatorCall], _Sizes | None]] = {
    "group_norm": _of_group_norm,
    "convscope_moments": _of_moments,
    "batch_norm": _of_instance_norm,
}
