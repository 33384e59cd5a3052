"""Matrix products of two values, as in attention: one side's gauge passes, the other side stays."""

import numpy as np

from convscope.fold.gauge.labels import Labels
from convscope.fold.gauge.reading import Reading, passes
from convscope.tape import OperatorCall


@passes("_softmax", always=True)
def softmax(reading: Reading, call: OperatorCall) -> None:
    """Nothing passes; along its axis it sums to 1."""
    reading.opaque(call)
    if call.arguments["dim"] % len(reading.shape(call.output)) == len(reading.shape(call.output)) - 1:
        reading.stochastic.add(call.output)


@passes(
    "bmm",
)
def product(reading: Reading, call: OperatorCall) -> None:
    """A B: scales of B's columns (or A's rows) pass; shifts of B do if A's rows sum to 1."""
    left, right = call.inputs
    a, b = reading.of(left), reading.of(right)
    if a.ndim != b.ndim or len(call.inputs) != 2:
        return reading.opaque(call)
    if b.any() and b.shape[-2] == 1 and not a.any():
        sums = left in reading.stochastic
        return _pass(reading, call, right, b, "" if sums else f"{call.address} sums with weights unlike 1")
    if a.any() and a.shape[-1] == 1 and not b.any():
        return _pass(reading, call, left, a, f"{call.address} sums with weights unlike 1")
    return reading.opaque(call)


def _pass(reading: Reading, call: OperatorCall, value: int, labels: Labels, shift: str) -> None:
    other = next(read for read in call.inputs if read != value)
    reading.fix(other, f"{call.address} multiplies by it")
    if shift:
        for kind in ("no shift", "constant"):
            reading.system.demand(kind, labels, shift)
    rank = len(reading.shape(call.output))
    reading.set(call.output, np.broadcast_to(labels, labels.shape).reshape(labels.shape[-rank:]))
