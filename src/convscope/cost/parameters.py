"""Which layer each parameter belongs to: the first that reads it, so that shared ones count once.

Two names are one parameter if they stand for the same region of one storage: tied tensors, and views such as
a transposed one. Parameters at different places of one storage (a network flattened into one buffer) are
different ones. Regions that overlap in part count whole, each.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict

from convscope.cost.layers import Layers
from convscope.tape import Tape, TensorInfo, Value

Region = tuple[int, int, int]
"""Storage, offset and number of elements."""


def region(parameter: TensorInfo) -> Region:
    """Return what tells a parameter from others; tied ones have the same."""
    return parameter.storage, parameter.offset, parameter.numel


def parameters_by_layer(tape: Tape, layers: Layers) -> dict[int, list[TensorInfo]]:
    """Return the parameters that every layer is the first to read, by ``id`` of the layer."""
    calls = tape.in_phase("forward", "loss")
    working = [call for call in calls if layers.significant(call)]
    idle = [call for call in calls if not layers.significant(call)]
    owned: dict[int, list[TensorInfo]] = defaultdict(list)
    waiting = _waiting(tape)
    for call in (*working, *idle):
        layer = layers.born(call.index)
        for value in map(tape.values.__getitem__, call.inputs):
            if layer is not None and value.storage in waiting:
                owned[id(layer)] += waiting[value.storage].read(value)
    return {layer: parameters for layer, parameters in owned.items() if parameters}


class _Waiting:
    """The parameters of one storage that nothing has read yet, by their place in it."""

    def __init__(self, parameters: list[TensorInfo]) -> None:
        self._parameters = sorted(parameters, key=lambda parameter: parameter.offset)
        self._offsets = [parameter.offset for parameter in self._parameters]
        self._longest = max(parameter.numel for parameter in parameters)

    def read(self, value: Value) -> list[TensorInfo]:
        """Take out the parameters that a value of the storage reaches into."""
        if not self._offsets or not value.numel:
            return []
        end = value.offset + 1 + sum((size - 1) * stride for size, stride in zip(value.shape, value.stride))
        first = bisect_right(self._offsets, value.offset - self._longest)
        last = bisect_left(self._offsets, end)
        near = self._parameters[first:last]
        read = [parameter for parameter in near if value.offset < parameter.offset + parameter.numel]
        if read:
            rest = [parameter for parameter in near if value.offset >= parameter.offset + parameter.numel]
            self._parameters[first:last] = rest
            self._offsets[first:last] = [parameter.offset for parameter in rest]
        return read


def _waiting(tape: Tape) -> dict[int, _Waiting]:
    by_storage: dict[int, list[TensorInfo]] = defaultdict(list)
    for parameter in distinct_parameters(tape):
        by_storage[parameter.storage].append(parameter)
    return {storage: _Waiting(parameters) for storage, parameters in by_storage.items()}


def distinct_parameters(tape: Tape) -> list[TensorInfo]:
    """Return the parameters of a network, tied ones once, under their first name."""
    return list({region(parameter): parameter for parameter in reversed(tape.parameters)}.values())[::-1]


def nbytes(parameter: TensorInfo) -> int:
    """Return the bytes of a parameter."""
    return parameter.numel * parameter.dtype.itemsize
