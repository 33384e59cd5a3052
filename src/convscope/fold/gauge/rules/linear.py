"""Sums of values, constants added, constants that multiply: gauges follow by linear equations."""

import numpy as np

from convscope.fold.gauge.labels import GROUND, Labels
from convscope.fold.gauge.reading import Reading, passes
from convscope.fold.gauge.scales import Numbers
from convscope.fold.recorded.flow import Stays
from convscope.tape import OperatorCall, Ref


def lifted(labels: Labels, rank: int) -> Labels:
    """Return labels with axes of length 1 before them, ``rank`` in all, as broadcasting adds them."""
    return labels.reshape((1,) * (rank - labels.ndim) + labels.shape)


def constant(reading: Reading, call: OperatorCall, name: str, rank: int) -> Numbers | None:
    """Return an operand that is a number or a constant tensor, compact; None if it isn't known.

    Args:
        reading: the reading.
        call: the call.
        name: of the operand.
        rank: of the call's output.
    """
    argument = call.arguments[name]
    if not isinstance(argument, Ref):
        return np.full((1,) * rank, float(argument))
    try:
        numbers = reading.constants.numbers(argument.value).double().numpy()
    except Stays:
        return None
    numbers = numbers.reshape((1,) * (rank - numbers.ndim) + numbers.shape)
    for axis in range(rank):
        first = numbers.take([0], axis)
        if numbers.shape[axis] > 1 and (numbers == first).all():
            numbers = first
    return numbers


def is_data(reading: Reading, call: OperatorCall, name: str) -> bool:
    """Whether an operand depends on the network's inputs."""
    value = call.tensor(name)
    return value is not None and not reading.constants.holds(value)


def fits(numbers: Numbers | None, labels: Labels) -> bool:
    """Whether numbers change only along axes along which labels change too."""
    if numbers is None:
        return False
    return np.broadcast_shapes(numbers.shape, labels.shape) == labels.shape


def sides(reading: Reading, call: OperatorCall) -> tuple[str | None, str | None, int]:
    """Return the names of the data operand and the constant one of a call with one of each, and the rank.

    Both are None if both operands are data.
    """
    rank = len(reading.shape(call.output))
    own, other = is_data(reading, call, "self"), is_data(reading, call, "other")
    if own and other:
        return None, None, rank
    return ("self", "other", rank) if own else ("other", "self", rank)


@passes("add", "sub", "rsub")
def add(reading: Reading, call: OperatorCall) -> None:
    """The sum of two values has their common scale, and the sum of their shifts; a layer has its own bias."""
    alpha = float(call.arguments.get("alpha", 1)) * (1 if call.op.startswith("add") else -1)
    weights = (
        {"self": 1.0, "other": alpha} if not call.op.startswith("rsub") else {"self": alpha, "other": 1.0}
    )
    name, other, rank = sides(reading, call)
    why = str(call.address)
    if name is None or other is None:
        terms = [
            (lifted(reading.of(call.arguments[side].value), rank), weights[side])
            for side in ("self", "other")
        ]
        return reading.set(call.output, _sum(reading, terms, why))
    labels = lifted(reading.of(call.arguments[name].value), rank)
    if call.index in reading.biases:
        return reading.set(call.output, labels)
    number = constant(reading, call, other, rank)
    if number is not None and fits(number, labels):
        out = reading.system.combined([(labels, weights[name])], number * weights[other], why)
        return reading.set(call.output, out)
    reading.system.demand("unit scale", labels, f"{call.address} adds a constant that isn't one per channel")
    if weights[name] != 1:
        labels = reading.system.combined([(labels, weights[name])], 0.0, why)
    return reading.set(call.output, labels)


def _sum(reading: Reading, terms: list[tuple[Labels, float]], why: str) -> Labels:
    if all(labels.size == 1 and labels.item() == GROUND for labels, _ in terms):
        return terms[0][0]
    return reading.system.combined(terms, 0.0, why)


@passes("mul", "div")
def multiply(reading: Reading, call: OperatorCall) -> None:
    """A constant times a value keeps its scale; a value times another takes the scale of one of them."""
    name, other, rank = sides(reading, call)
    if name is None or other is None:
        return _product(reading, call, rank)
    if call.op.startswith("div") and (name == "other" or call.arguments.get("rounding_mode")):
        return reading.opaque(call)
    labels = lifted(reading.of(call.arguments[name].value), rank)
    number = constant(reading, call, other, rank)
    if number is not None and fits(number, labels):
        factor = 1.0 / number if call.op.startswith("div") else number
        return reading.set(call.output, reading.system.combined([(labels, factor)], 0.0, str(call.address)))
    reading.system.demand(
        "no shift", labels, f"{call.address} multiplies by a constant that isn't one per channel"
    )
    return reading.set(call.output, labels)


def _product(reading: Reading, call: OperatorCall, rank: int) -> None:
    """A gate: the larger operand's scale passes, and nothing else."""
    own, other = call.arguments["self"].value, call.arguments["other"].value
    size = {value: int(np.prod(reading.shape(value))) for value in (own, other)}
    grounded = {value: not reading.of(value).any() for value in (own, other)}
    if own == other:
        return reading.opaque(call)
    swap = not call.op.startswith("div") and (
        size[other] > size[own] or (size[other] == size[own] and grounded[own] and not grounded[other])
    )
    passing, gate = (other, own) if swap else (own, other)
    labels = lifted(reading.of(passing), rank)
    reading.fix(gate, f"{call.address} multiplies by it")
    for kind in ("no shift", "constant"):
        reading.system.demand(kind, labels, f"{call.address} multiplies by another value")
    return reading.set(call.output, labels)


@passes("neg")
def negate(reading: Reading, call: OperatorCall) -> None:
    """Minus a value."""
    labels = reading.of(call.inputs[0])
    reading.set(call.output, reading.system.combined([(labels, -1.0)], 0.0, str(call.address)))
