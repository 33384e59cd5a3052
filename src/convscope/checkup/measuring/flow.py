"""Questions to the tape: what reads a batch norm's output, and which batch norms read a convolution's."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from convscope.core.address import ROOT
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

# Operators which draw what to drop: elements, channels, or whole branches.
DROPS = ("native_dropout", "bernoulli", "bernoulli_")


def feeds_only_relus(tape: Tape, operator: str) -> bool | None:
    """Return whether ReLUs alone read an operator call's result; None if the tape doesn't have the call."""
    call = tape.find(operator)
    if not isinstance(call, OperatorCall):
        return None
    readers = tape.consumers(call.output)
    return bool(readers) and call.output not in tape.outputs and all(map(_is_relu, readers))


def reach_outputs(tape: Tape, operators: Iterable[str]) -> bool:
    """Return whether any of these calls has a part in the network's outputs; True if the tape lacks them."""
    calls = [tape.find(operator) for operator in operators]
    made = {call.output for call in calls if isinstance(call, OperatorCall)}
    pending, seen = list(tape.outputs), set(tape.outputs)
    while pending and made.isdisjoint(seen):
        producer = tape.producer(pending.pop())
        before = set() if producer is None else set(producer.inputs) - seen
        pending += before
        seen |= before
    return not made or not made.isdisjoint(seen)


def norms_reading(tape: Tape, operator: str) -> tuple[str, ...]:
    """Return the batch norms that read an operator call's result, if nothing else does.

    By module path; one that is called as a function, with statistics of another name, by its address.

    In-between calls that don't change what a channel holds, such as flattening, aren't looked through: then
    the answer is empty, as it is if the tape doesn't have the call.
    """
    call = tape.find(operator)
    if not isinstance(call, OperatorCall) or call.output in tape.outputs:
        return ()
    readers = tape.consumers(call.output)
    if any(reader.op != "batch_norm" for reader in readers):
        return ()
    return tuple(dict.fromkeys(_norm_name(tape, reader) for reader in readers))


def running_mean_behind(tape: Tape, operators: Iterable[str]) -> str | None:
    """Return the running mean that a constant can be moved into exactly, by its name in the network.

    That is the one buffer by which all results of these operator calls are normalised, if no batch norm
    normalises anything else by it; None otherwise.
    """
    made = {call.output for call in map(tape.find, operators) if isinstance(call, OperatorCall)}
    readers = [reader for value in made for reader in tape.consumers(value)]
    if not readers or any(reader.op != "batch_norm" for reader in readers):
        return None
    means = {reader.tensor("running_mean") for reader in readers}
    mean = means.pop()
    if mean is None or means:
        return None
    buffer, held = tape.buffer_of(mean), tape.values[mean]
    if buffer is None or (held.shape, held.producer) != (buffer.shape, None):
        return None
    here = {reader.index for reader in readers if reader.tensor("input") in made}
    everywhere = {call.index for call in tape.calls if _reads_storage(tape, call, held.storage)}
    return buffer.name if everywhere == here else None


def drops_before(tape: Tape, operator: str) -> tuple[str, ...]:
    """Return the module calls that drop a part of what a batch norm call reads, with no batch norm between.

    Args:
        tape: of a run in training mode.
        operator: the batch norm call's address.
    """
    call = tape.find(operator)
    if not isinstance(call, OperatorCall):
        return ()
    pending = [call.tensor("input")]
    seen, found = set(pending), {}
    while pending:
        value = pending.pop()
        before = None if value is None else tape.producer(value)
        if before is None or before.op == "batch_norm":
            continue
        if before.op in DROPS:
            found[before.index] = str(before.address.module)
        pending += [index for index in before.inputs if index not in seen]
        seen.update(before.inputs)
    return tuple(dict.fromkeys(address for _, address in sorted(found.items())))


def _reads_storage(tape: Tape, call: OperatorCall, storage: int) -> bool:
    return any(tape.values[value].storage == storage for value in call.inputs)


def _norm_name(tape: Tape, call: OperatorCall) -> str:
    mean = call.tensor("running_mean")
    buffer = None if mean is None else tape.buffer_of(mean)
    own = buffer is None or buffer.name == f"{call.address.path}.running_mean"
    return call.address.path if own and call.address.path != ROOT else str(call.address)


def _is_relu(call: OperatorCall) -> bool:
    rule = _RELUS.get(call.op.removesuffix("_"))
    return rule is not None and rule(call.arguments)
