"""Which gradient a product in the backward pass computes: of a layer's input, or of its weight.

Decided from the data flow. A gradient is a weight's if its operand is computed from parameters alone (views,
casts, normalised weights, tables made by a small network), and an input's otherwise; where both factors of
a product are, the second is the weight, as in every linear layer. For y = x W the gradient of x multiplies dy
with W, and that of W multiplies it with x: the factor which the product in backward reads again tells that
it computes the gradient of the other one.

The gradient of a matrix in a product with a vector is an outer product, dy xᵀ, and that of a vector in a dot
product a multiple of the other one. Autograd runs both as a ``mul`` that broadcasts: one multiply–accumulate
for each element of its result, as many as the forward product has.
"""

from math import prod

from convscope.cost.arithmetic.flops import Gradients, factors
from convscope.tape import OperatorCall, Tape

_OF_VECTORS = ("mv", "addmv", "addmv_", "dot", "vdot")


class ParameterFlow:
    """Knows which values of a tape are computed from parameters (with buffers and constants) alone.

    Args:
        tape: the recording.
    """

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._derived: set[int] = set()
        self._constant: set[int] = set()
        self._cloned: dict[int, int] = {}
        for call in tape.in_phase("forward", "loss", "recompute", "backward"):
            if call.op == "clone" and call.phase == "backward" and call.outputs[0] is not None:
                self._cloned[call.outputs[0]] = call.inputs[0]
            if all(map(self._is_constant, call.inputs)):
                self._constant.update(value for value in call.outputs if value is not None)
            elif all(self._is_constant(value) or self.from_parameters(value) for value in call.inputs):
                self._derived.update(value for value in call.outputs if value is not None)

    def from_parameters(self, value: int) -> bool:
        """Whether a value is a parameter, a view of one, or computed from parameters alone."""
        return value in self._derived or self._tape.parameter_of(value) is not None

    def reads_parameter(self, call: OperatorCall) -> bool:
        """Whether a factor of a product (any input of another operator) comes from parameters alone."""
        names = factors(call.op)
        operands = call.inputs if names is None else tuple(call.tensor(name) for name in names)
        return any(value is not None and self.from_parameters(value) for value in operands)

    def is_weight_gradient(self, call: OperatorCall) -> bool:
        """Whether a product in the backward pass computes the gradient of a weight, not of an input."""
        if call.forward is None:
            return False
        forward = self._tape.calls[call.forward]
        differentiated = self._differentiated(call, forward)
        if differentiated is not None:
            return self._weights(forward)[differentiated]
        return not self.reads_parameter(call) and self.reads_parameter(forward)

    def outer_product(self, call: OperatorCall) -> int:
        """Return the MACs of a ``mul`` that is a gradient of a product with a vector; 0 for others."""
        if call.op.removesuffix("_") != "mul" or call.forward is None:
            return 0
        forward = self._tape.calls[call.forward]
        if forward.op not in _OF_VECTORS:
            return 0
        read = {*self._read_by_outer(call)}
        # The gradient meets one of the factors; one that meets a number, such as alpha, is only scaled.
        if None in read or len(read & {*self._factor_storages(forward)}) != 1:
            return 0
        return prod(self._tape.values[call.outputs[0]].shape) if call.outputs[0] is not None else 0

    def split(self, call: OperatorCall, found: Gradients) -> Gradients:
        """Return gradients with those of named operands added to the inputs' or to the weights'."""
        weight = found.weight
        for name, macs in found.operands:
            value = call.tensor(name)
            weight += macs if value is not None and self.from_parameters(value) else 0
        total = found.input + found.weight + sum(macs for _, macs in found.operands)
        return Gradients(total - weight, weight, found.recomputed)

    def _differentiated(self, call: OperatorCall, forward: OperatorCall) -> int | None:
        """Which factor of a forward product one in backward differentiates: 0, 1, or None if unclear."""
        first, second = self._factor_storages(forward)
        is_outer = call.op.removesuffix("_") == "mul"
        read = self._read_by_outer(call) if is_outer else self._factor_storages(call)
        if None in read or first is None or second is None or (first in read) == (second in read):
            return None
        return 1 if first in read else 0

    def _factor_storages(self, call: OperatorCall) -> tuple[int | None, int | None]:
        names = factors(call.op)
        if names is None:
            return None, None
        first, second = (call.tensor(name) for name in names)
        if first is None or second is None:
            return None, None
        return self._tape.values[first].storage, self._tape.values[second].storage

    def _read_by_outer(self, call: OperatorCall) -> tuple[int | None, int | None]:
        """The storages that a ``mul`` reads; of a complex factor it reads a conjugate clone."""
        first, second = call.tensor("self"), call.tensor("other")
        if first is None or second is None:
            return None, None
        first, second = self._cloned.get(first, first), self._cloned.get(second, second)
        return self._tape.values[first].storage, self._tape.values[second].storage

    def _weights(self, product: OperatorCall) -> tuple[bool, bool]:
        """Whether the first and the second factor of a product is its weight; at most one is."""
        names = factors(product.op)
        assert names is not None
        first, second = (
            call is not None and self.from_parameters(call) for call in map(product.tensor, names)
        )
        return first and not second, second

    def _is_constant(self, value: int) -> bool:
        """Whether a value is a buffer, a constant, or made without any tensor."""
        role = self._tape.storages[self._tape.values[value].storage].role
        return value in self._constant or role in ("buffer", "constant")
