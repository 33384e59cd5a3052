"""Which value holds a convolution's units: its channels after their normalisation and activation.

A convolution's bare output, before a batch norm with a negative gamma, would rank the images upside down.
So its data flow is followed through everything that maps each channel on its own: a normalisation, channel
scales and shifts, and one activation function. It ends where channels are mixed, where maps are pooled or
added, and where a value has several readers.
"""

from dataclasses import dataclass

from convscope.core.address import Address
from convscope.sight.projecting.below import Below
from convscope.tape import ModuleCall, OperatorCall, Tape

ACTIVATIONS = frozenset(
    name + suffix
    for name in (
        "relu", "threshold", "clamp", "clamp_min", "hardtanh", "leaky_relu", "rrelu_with_noise", "elu",
        "celu", "selu", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "sigmoid", "tanh", "softplus",
        "_prelu_kernel",
    )
    for suffix in ("", "_")
)  # fmt: skip
_NORMALISATIONS = {"batch_norm", "group_norm", "layer_norm"}
_SCALES = {"mul", "mul_", "add", "add_", "sub", "sub_", "rsub", "neg", "neg_"}
_QUOTIENTS = {"div", "div_"}


@dataclass(frozen=True)
class UnitMaps:
    """The units of one convolution.

    Attributes:
        name: the convolution's module path, or its address where the module has several.
        address: the convolution's.
        unit_address: of the operator whose output holds the units.
        value: that output.
        num_units: channels.
        map_size: (height, width).
    """

    name: str
    address: str
    unit_address: str
    value: int
    num_units: int
    map_size: tuple[int, int]


def units_of(tape: Tape) -> tuple[tuple[UnitMaps, ...], tuple[str, ...]]:
    """Return the units of every convolution over the image, and those left out, each with its reason.

    Args:
        tape: of one run in evaluation mode, with a batch of two: one image alone wouldn't tell channels from
            images where they are folded together.

    Example:
        >>> from torch import nn
        >>> from convscope.tape import record
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        >>> [(u.name, u.unit_address, u.map_size) for u in units_of(record(net, (2, 3, 9, 7)))[0]]
        [('0', '2#1:relu.1', (7, 5))]
    """
    below, found, left_out = Below(tape), list[UnitMaps](), list[str]()
    convolutions = [call for call in tape.in_phase("forward") if call.op == "convolution"]
    names = _names(convolutions)
    num_images = tape.values[tape.inputs[0]].shape[0]
    for call in convolutions:
        shape = tape.values[call.output].shape
        if len(shape) != 4 or shape[0] != num_images or not below.depends_on_image(call.output):
            left_out.append(f"{call.address}: its output of shape {shape} isn't maps over the images")
            continue
        value = _follow(tape, below, call.output)
        producer = tape.producer(value)
        assert producer is not None
        found.append(
            UnitMaps(
                names[call.address],
                str(call.address),
                str(producer.address),
                value,
                shape[1],
                (shape[2], shape[3]),
            )
        )
    return tuple(found), tuple(left_out)


def _names(convolutions: list[OperatorCall]) -> dict[Address, str]:
    paths = [call.address.path for call in convolutions]
    return {
        call.address: path if paths.count(path) == 1 and path != "self" else str(call.address)
        for call, path in zip(convolutions, paths)
    }


def _follow(tape: Tape, below: Below, value: int) -> int:
    """The last value that still holds the same channels."""
    while True:
        step = _normalised_by_module(tape, value) or _next(tape, below, value)
        if step is None:
            return value
        value, ended = step
        if ended:
            return value


def _next(tape: Tape, below: Below, value: int) -> tuple[int, bool] | None:
    # A view of the same shape reads and returns the same value.
    consumers = [
        call for call in tape.consumers(value) if call.phase == "forward" and value not in call.outputs
    ]
    if len(consumers) != 1 or value in tape.outputs:
        return None
    call = consumers[0]
    if call.op in ACTIVATIONS:
        return call.output, True
    same_shape = tape.values[call.output].shape == tape.values[value].shape
    is_first = call.inputs[0] == value
    is_normalisation = call.op in _NORMALISATIONS and is_first
    if same_shape and (is_normalisation or _is_scale(below, call, is_first)):
        return call.output, False
    return None


def _is_scale(below: Below, call: OperatorCall, is_first: bool) -> bool:
    """Whether it scales or shifts by constants, in either order where that is one too."""
    either_order = call.op in _SCALES and not call.op.endswith("_")
    known = either_order or (is_first and call.op in _SCALES | _QUOTIENTS)
    return known and sum(below.depends_on_image(value) for value in call.inputs) == 1


def _normalised_by_module(tape: Tape, value: int) -> tuple[int, bool] | None:
    """A normalisation made of several operators is known by its module's call."""
    readers = [module for module in tape.modules if value in module.inputs and _is_normalisation(module)]
    if len(readers) != 1 or len(readers[0].outputs) != 1:
        return None
    output = readers[0].outputs[0]
    inside = {call.index for call in tape.calls_of(readers[0].index)}
    outside = [call for call in tape.consumers(value) if call.index not in inside and call.phase == "forward"]
    if outside or output == value or tape.values[output].shape != tape.values[value].shape:
        return None
    return output, False


def _is_normalisation(module: ModuleCall) -> bool:
    return module.is_leaf and "norm" in module.type_name.lower()
