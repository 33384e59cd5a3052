"""Which layer each parameter belongs to: the first that reads it, so that shared ones count once."""

from collections import defaultdict

from convscope.cost.layers import Layers
from convscope.tape import Tape, TensorInfo


def parameters_by_layer(tape: Tape, layers: Layers) -> dict[int, list[TensorInfo]]:
    """Return the parameters that every layer is the first to read, by ``id`` of the layer."""
    calls = tape.in_phase("forward", "loss")
    working = [call for call in calls if layers.significant(call)]
    idle = [call for call in calls if not layers.significant(call)]
    owned: dict[int, list[TensorInfo]] = defaultdict(list)
    seen: set[int] = set()
    for call in (*working, *idle):
        layer = layers.born(call.index)
        for value in call.inputs:
            parameter = tape.parameter_of(value)
            if layer is not None and parameter is not None and parameter.storage not in seen:
                seen.add(parameter.storage)
                owned[id(layer)].append(parameter)
    return owned


def distinct_parameters(tape: Tape) -> list[TensorInfo]:
    """Return the parameters of a network, tied ones once, under their first name."""
    return list({parameter.storage: parameter for parameter in reversed(tape.parameters)}.values())[::-1]


def nbytes(parameter: TensorInfo) -> int:
    """Return the bytes of a parameter."""
    return parameter.numel * parameter.dtype.itemsize
