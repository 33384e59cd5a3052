"""Maps that a module returns, chosen by its path: blocks, pools, sums of branches."""

from convscope.core.address import parse_address
from convscope.core.errors import ConvscopeError
from convscope.sight.units.layout import channel_axes
from convscope.sight.units.maps import UnitMaps
from convscope.tape import ModuleCall, Tape


def module_maps(tape: Tape, name: str) -> UnitMaps | None:
    """Return what the module call of this name returns as units; None if the network runs no such module.

    Args:
        tape: of one run in evaluation mode, with a batch of two.
        name: a module path (its first call is meant) or the address of a module call.

    Raises:
        ConvscopeError: what it returns isn't maps (n, channels, height, width) over the images.

    Example:
        >>> from torch import nn
        >>> from convscope.tape import record
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2))
        >>> maps = module_maps(record(net, (2, 3, 9, 8)), "2")
        >>> maps.unit_address, maps.num_units, maps.map_size
        ('2#1:max_pool2d_with_indices.1', 8, (3, 3))
    """
    call = tape.find(parse_address(name))
    if not isinstance(call, ModuleCall):
        return None
    value = call.outputs[0] if call.outputs else None
    if value is None or not _are_maps(tape, value):
        shape = None if value is None else tape.values[value].shape
        raise ConvscopeError(
            f"layer {name!r} for a gallery, with an output of shape {shape}",
            "maps (images, channels, height, width), made by one operator",
            "choose a convolution, or a module that returns maps",
        )
    producer, shape = tape.producer(value), tape.values[value].shape
    assert producer is not None
    return UnitMaps(name, str(call.address), str(producer.address), value, shape[1], (shape[2], shape[3]))


def _are_maps(tape: Tape, value: int) -> bool:
    shape, producer = tape.values[value].shape, tape.producer(value)
    if len(shape) != 4 or shape[0] != tape.values[tape.inputs[0]].shape[0] or producer is None:
        return False
    return producer.outputs[0] == value and channel_axes(tape).get(value, 1) == 1
