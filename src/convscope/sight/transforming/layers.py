"""Which layers' features are compared, and where their positions lie."""

from collections.abc import Sequence

from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.sight.project import locate
from convscope.sight.transforming.geometry import grid
from convscope.sight.transforming.meter import Layer
from convscope.sight.units.layout import channel_axes
from convscope.sight.units.maps import units_of
from convscope.sight.units.reading import Place
from convscope.tape import Tape
from convscope.tape.receptive_field import receptive_fields


def layers_of(
    model: nn.Module, tape: Tape, layers: str | Sequence[str], size: tuple[int, int]
) -> tuple[list[Layer], tuple[str, ...]]:
    """Return the layers to compare, and the convolutions that ``"all"`` leaves out, each with its reason.

    Args:
        model: the network.
        tape: of one run in evaluation mode with two images.
        layers: ``"all"``, or names or addresses.
        size: (height, width) of the images.

    Raises:
        ConvscopeError: none are named, one isn't there, or has no features of each image.
    """
    fields, axes = receptive_fields(tape), channel_axes(tape)

    def layer(name: str, place: Place) -> Layer:
        shape = tape.values[place.value].shape
        if len(shape) < 2 or shape[0] != 2:
            raise ConvscopeError(
                f"layer {name!r} with an output of shape {shape} for two images",
                "features of each image",
                "choose another layer",
            )
        has_units = axes.get(place.value, 1) == 1 and len(shape) in (2, 4)
        is_map = has_units and len(shape) == 4 and min(shape[2:]) > 1
        positions = grid(fields.get(place.value), (shape[2], shape[3]), size) if is_map else None
        return Layer(name, place, shape[1:], has_units, positions)

    if isinstance(layers, str) and layers == "all":
        units, left_out = units_of(tape)
        return [layer(unit.name, Place(unit.unit_address, unit.value)) for unit in units], left_out
    names = [layers] if isinstance(layers, str) else list(layers)
    if not names:
        raise ConvscopeError("layers=[]", "names of layers, or 'all'", "name at least one")
    return [layer(name, Place(*locate(model, tape, name))) for name in names], ()
