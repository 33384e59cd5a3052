"""Which layer each parameter belongs to: the first that reads it, so that shared ones count once.

Two names are one parameter if they stand for the same region of one storage: tied tensors, and views such as
a transposed one. Parameters at different places of one storage (a network flattened into one buffer) are
different ones. Regions that overlap in part count whole, each.
"""

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
    waiting: dict[int, list[TensorInfo]] = defaultdict(list)
    for parameter in distinct_parameters(tape):
        waiting[parameter.storage].append(parameter)
    for call in (*working, *idle):
        layer = layers.born(call.index)
        for value in map(tape.values.__getitem__, call.inputs):
            if layer is None or not waiting.get(value.storage):
                continue
            read = [parameter for parameter in waiting[value.storage] if _overlaps(value, parameter)]
            owned[id(layer)] += read
            waiting[value.storage] = [p for p in waiting[value.storage] if p not in read]
    return {layer: parameters for layer, parameters in owned.items() if parameters}


def distinct_parameters(tape: Tape) -> list[TensorInfo]:
    """Return the parameters of a network, tied ones once, under their first name."""
    return list({region(parameter): parameter for parameter in reversed(tape.parameters)}.values())[::-1]


def nbytes(parameter: TensorInfo) -> int:
    """Return the bytes of a parameter."""
    return parameter.numel * parameter.dtype.itemsize


def _overlaps(value: Value, parameter: TensorInfo) -> bool:
    """Whether a value of the parameter's storage reaches into its region."""
    end = value.offset + 1 + sum((size - 1) * stride for size, stride in zip(value.shape, value.stride))
    return value.numel > 0 and value.offset < parameter.offset + parameter.numel and parameter.offset < end
