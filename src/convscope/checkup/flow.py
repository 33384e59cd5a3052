"""Questions to the tape: what reads a batch norm's output, and which batch norms read a convolution's."""

from collections.abc import Callable, Mapping
from typing import Any

from convscope.core.address import parse_address
from convscope.tape import OperatorCall, Tape


def _always(_: Mapping[str, Any]) -> bool:
    return True


def _clamps_at_zero(name: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda arguments: arguments.get(name) == 0


def _threshold_at_zero(arguments: Mapping[str, Any]) -> bool:
    return arguments.get("threshold") == 0 and arguments.get("value") == 0


# Operators which send everything below zero to zero, and what their arguments must be for that.
_RELUS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "relu": _always,
    "hardtanh": _clamps_at_zero("min_val"),
    "clamp": _clamps_at_zero("min"),
    "clamp_min": _clamps_at_zero("min"),
    "threshold": _threshold_at_zero,
}


def feeds_only_relus(tape: Tape, operator: str) -> bool | None:
    """Return whether ReLUs alone read an operator call's result; None if the tape doesn't have the call."""
    call = tape.find(operator)
    if not isinstance(call, OperatorCall):
        return None
    readers = tape.consumers(call.output)
    return bool(readers) and call.output not in tape.outputs and all(map(_is_relu, readers))


def norms_reading(tape: Tape, operator: str) -> tuple[str, ...]:
    """Return the paths of the batch norms that read an operator call's result, if nothing else does.

    In-between calls that don't change what a channel holds, such as flattening, aren't looked through: then
    the answer is empty, as it is if the tape doesn't have the call.
    """
    call = tape.find(operator)
    if not isinstance(call, OperatorCall) or call.output in tape.outputs:
        return ()
    readers = tape.consumers(call.output)
    if any(reader.op != "batch_norm" for reader in readers):
        return ()
    return tuple(dict.fromkeys(parse_address(str(reader.address)).path for reader in readers))


def _is_relu(call: OperatorCall) -> bool:
    rule = _RELUS.get(call.op.removesuffix("_"))
    return rule is not None and rule(call.arguments)
