"""Which gradient a matrix product in the backward pass computes: of the layer's input, or of its weight.

Decided from the data flow. For y = x W the input's gradient multiplies dy with W and the weight's multiplies
it with x: a product that reads a parameter computes an input gradient; one that reads none, in the backward
of a layer that does, computes a weight gradient; and where the forward product had no parameter (attention)
both are gradients of inputs.
"""

from convscope.cost.arithmetic.flops import factors
from convscope.tape import OperatorCall, Tape


class ParameterFlow:
    """Knows which values of a tape are computed from parameters alone (views, casts, weight norms).

    Args:
        tape: the recording.
    """

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._derived: set[int] = set()
        for call in tape.in_phase("forward", "loss", "recompute", "backward"):
            if call.inputs and self._only_parameters(call.inputs):
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
        if call.forward is None or self.reads_parameter(call):
            return False
        return self.reads_parameter(self._tape.calls[call.forward])

    def _only_parameters(self, values: tuple[int, ...]) -> bool:
        storages = (self._tape.storages[self._tape.values[value].storage] for value in values)
        others = [
            value
            for value, storage in zip(values, storages)
            if storage.role not in ("buffer", "constant") and not self.from_parameters(value)
        ]
        return not others and any(self.from_parameters(value) for value in values)
