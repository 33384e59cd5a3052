"""Convolution and linear layers: gauges end in their weights, and new ones begin."""

import numpy as np

from convscope.fold.flow import Stays
from convscope.fold.gauge.labels import Labels, along, on_axis
from convscope.fold.gauge.reading import Reading, passes
from convscope.fold.layer import KINDS, Layer, layer_of
from convscope.tape import OperatorCall

_AXIS = 1


@passes("convolution", "addmm", "mm", always=True)
def layer(reading: Reading, call: OperatorCall) -> None:
    """W' = a_out W / a_in: any scale but 0 goes in, any gauge comes out; zeros in the padding take no shift."""
    value = call.tensor(KINDS[call.op].data)
    if value is None or reading.constants.holds(value):
        return reading.opaque(call)
    shape, made = reading.shape(value), reading.shape(call.output)
    if len(shape) < 2 or (call.op == "convolution" and len(shape) != call_rank(reading, call)):
        return reading.opaque(call, f"{call.address} is given a single sample without a batch axis")
    inputs = on_axis(reading.of(value), _AXIS, shape[_AXIS])
    if inputs is None:
        why = f"the channels of {call.address} aren't those of what it reads"
        reading.fix(value, why)
        inputs = np.zeros(shape[_AXIS], dtype=np.int64)
    try:
        found = layer_of(reading.flow, call, inputs, inputs)
    except Stays as reason:
        return reading.opaque(call, str(reason))
    earlier = reading.layers.get(found.weight)
    calls = reading.calls[earlier.call.index] if earlier else []
    calls.append(call)
    reading.calls[call.index] = calls
    outputs = earlier.outputs if earlier else reading.system.fresh((made[_AXIS],))
    _ask(reading, found, inputs)
    if earlier is not None:
        _tie(reading, earlier, inputs)
    else:
        reading.layers[found.weight] = Layer(**{**vars(found), "outputs": outputs})
    if found.bias is None:
        reading.system.demand("no shift", outputs, f"{call.address} has no bias, and its module no empty one")
        reading.system.demand("no shift", inputs, f"{call.address} has no bias, and its module no empty one")
    return reading.set(call.output, along(outputs, _AXIS, len(made)))


def call_rank(reading: Reading, call: OperatorCall) -> int:
    """Return the rank of a batched input of a convolution: that of its weights."""
    weight = call.tensor("weight")
    assert weight is not None
    return len(reading.shape(weight))


def _ask(reading: Reading, found: Layer, inputs: Labels) -> None:
    call = found.call
    reading.system.demand("nonzero", inputs, f"{call.address} reads it")
    if call.op != "convolution":
        return
    if call.arguments["transposed"]:
        sizes = reading.shape(call.tensor("weight") or 0)[2:]
        ones = all(size == 1 for size in (*sizes, *call.arguments["stride"]))
        if not ones or any((*call.arguments["padding"], *call.arguments["output_padding"])):
            why = f"{call.address} is a transposed convolution, whose outputs sum over unlike numbers of weights"
            reading.system.demand("no shift", inputs, why)
    elif any(call.arguments["padding"]):
        reading.system.demand("no shift", inputs, f"{call.address} pads with zeros, where a shift would show")


def _tie(reading: Reading, earlier: Layer, inputs: Labels) -> None:
    """One layer called twice reads values of one gauge."""
    why = f"{earlier.address} is called more than once"
    reading.system.tie(earlier.inputs, inputs, why)
    reading.system.alike(earlier.inputs, inputs, why)
