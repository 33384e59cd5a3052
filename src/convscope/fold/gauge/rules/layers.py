"""Convolution and linear layers: gauges end in their weights, and new ones begin."""

from dataclasses import replace

import numpy as np

from convscope.fold.gauge.labels import Labels, along, on_axis
from convscope.fold.gauge.reading import Reading, passes
from convscope.fold.layers.border import ZeroBorder, border_of, pads_with_zeros
from convscope.fold.layers.layer import KINDS, Layer, layer_of
from convscope.fold.layers.materialised import REMEDY, Plain, attribute_of, is_computed
from convscope.fold.layers.plain_layer import plain_layer_of
from convscope.fold.recorded.flow import Stays
from convscope.tape import OperatorCall

_AXIS = 1


@passes("convolution", "addmm", "mm", always=True)
def layer(reading: Reading, call: OperatorCall) -> None:
    """W' = a_out W / a_in: any scale but 0 goes in, any gauge comes out; zeros around take no shift."""
    value = call.tensor(KINDS[call.op].data)
    if value is None:
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
        found = _found(reading, call, inputs)
    except Stays as reason:
        return reading.opaque(call, reading.text(reason))
    if call.index in reading.lent:
        found = replace(found, bias=reading.lent[call.index])
    earlier = reading.layers.get(found.weight)
    calls = reading.calls[earlier.call.index] if earlier else []
    calls.append(call)
    reading.calls[call.index] = calls
    if found.added is not None:
        reading.biases.add(found.added.index)
    outputs = earlier.outputs if earlier else reading.system.fresh((made[_AXIS],))
    if reading.constants.holds(value):
        reading.system.demand("fixed", outputs, f"{call.address} makes a constant")
    found = replace(found, outputs=outputs, border=_ask(reading, found, inputs))
    if earlier is not None:
        _tie(reading, earlier, found)
    else:
        reading.layers[found.weight] = found
    if found.bias is None:
        why = reading.text(found.no_room)
        reading.system.demand("no shift", outputs, why)
        reading.system.demand("no shift", inputs, why)
    return reading.set(call.output, along(outputs, _AXIS, len(made)))


def call_rank(reading: Reading, call: OperatorCall) -> int:
    """Return the rank of a batched input of a convolution: that of its weights."""
    weight = call.tensor("weight")
    assert weight is not None
    return len(reading.shape(weight))


def _found(reading: Reading, call: OperatorCall, inputs: Labels) -> Layer:
    """The layer of a call; weights that are computed in every run become plain ones if the user wishes it."""
    if reading.options.materialise:
        return layer_of(reading.flow, call, inputs, inputs, _plain(reading, call))
    try:
        return layer_of(reading.flow, call, inputs, inputs)
    except Stays as reason:
        try:
            helps = _plain(reading, call) is not None
        except Stays:
            helps = False
        raise Stays(str(reason), REMEDY if helps else "") from None


def _plain(reading: Reading, call: OperatorCall) -> Plain | None:
    """How the weights of a call become plain ones; None if they are parameters, or depend on data."""
    flow, constants, kind = reading.flow, reading.constants, KINDS[call.op]
    weight, bias = call.tensor(kind.weight), None if kind.bias is None else call.tensor(kind.bias)
    assert weight is not None
    computed = [each for each in (weight, bias) if each is not None and is_computed(flow, each)]
    if not computed or not all(constants.holds(each) for each in computed):
        return None
    plain = None
    if weight in computed:
        plain = attribute_of(flow, constants, call, (weight, bias if bias in computed else None))
    return plain or plain_layer_of(flow, constants, call, (weight, bias))


def _ask(reading: Reading, found: Layer, inputs: Labels) -> ZeroBorder | None:
    """Ask what the call needs of its inputs' gauges; return the zeros whose place a shift may take."""
    call = found.call
    reading.system.demand("nonzero", inputs, f"{call.address} reads it")
    if call.op != "convolution":
        return None
    if call.arguments["transposed"]:
        sizes = reading.shape(call.tensor("weight") or 0)[2:]
        ones = all(size == 1 for size in (*sizes, *call.arguments["stride"]))
        if not ones or any((*call.arguments["padding"], *call.arguments["output_padding"])):
            why = "is a transposed convolution, whose outputs sum over unlike numbers of weights"
            reading.system.demand("no shift", inputs, f"{call.address} {why}")
    elif pads_with_zeros(reading.flow, reading.constants, call):
        becomes = found.plain.becomes if found.plain else None
        try:
            border = border_of(reading.flow, reading.constants, reading.options, call, becomes)
        except Stays as reason:
            reading.system.demand("no shift", inputs, reading.text(reason))
        else:
            reading.system.demand("rather no shift", inputs, f"{call.address} pads with zeros")
            if border.how == "pad":
                reading.system.demand("padded", inputs, f"{call.address} pads with one number per channel")
            return border
    return None


def _tie(reading: Reading, earlier: Layer, found: Layer) -> None:
    """One layer called twice reads values of one gauge, and is made the same of."""
    why = f"{earlier.address} is called more than once"
    reading.system.tie(earlier.inputs, found.inputs, why)
    reading.system.alike(earlier.inputs, found.inputs, why)
    if earlier.border != found.border:
        why = f"{why}, with other zeros around or another size"
        reading.system.demand("no shift", np.concatenate([earlier.inputs, found.inputs]), why)
    alike = earlier.plain is found.plain or (earlier.plain is not None and earlier.plain.agrees(found.plain))
    if not alike or (earlier.bias, earlier.has_bias) != (found.bias, found.has_bias):
        why = f"{why}, with other weights"
        labels = np.concatenate([earlier.inputs, found.inputs, earlier.outputs])
        reading.system.demand("fixed", labels, why)
