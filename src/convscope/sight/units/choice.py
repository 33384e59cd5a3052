"""Which layers' units are looked at: all convolutions, or those named."""

from convscope.core.address import parse_address
from convscope.core.errors import ConvscopeError
from convscope.sight.units.maps import UnitMaps
from convscope.sight.units.named import module_maps
from convscope.tape import Tape


def chosen(
    units: tuple[UnitMaps, ...], layers: str | list[str] | tuple[str, ...], tape: Tape | None = None
) -> tuple[UnitMaps, ...]:
    """Return the units of some layers, in order of execution; ``"all"`` means all convolutions.

    Args:
        units: of the network's convolutions.
        layers: names or addresses of convolutions, or of modules that return maps.
        tape: of the run, where those modules are looked for; None: convolutions alone.

    Raises:
        ConvscopeError: there are none, none is named, or one that isn't a convolution of the network or a
            module that returns maps.
    """
    if isinstance(layers, str) and layers == "all":
        if not units:
            raise ConvscopeError(
                "a network without convolutions over the image", "at least one", "galleries show their units"
            )
        return units
    found: dict[int, UnitMaps] = {}
    for name in _wanted(layers):
        own = [unit for unit in units if name in (unit.name, unit.address, unit.unit_address)]
        for unit in own or [_module(units, name, tape)]:
            found.setdefault(unit.value, unit)
    return tuple(found[value] for value in sorted(found))


def _module(units: tuple[UnitMaps, ...], name: str, tape: Tape | None) -> UnitMaps:
    is_operator = parse_address(name).op is not None
    maps = None if tape is None or is_operator else module_maps(tape, name)
    if maps is None:
        raise ConvscopeError(
            f"layer {name!r} for a gallery",
            "a convolution of this network, or a module that returns maps: "
            f"{', '.join(unit.name for unit in units) or 'it has no convolution'}",
            "choose among them, or layers='all'",
        )
    # A module that ends with a convolution's units returns the same.
    return next((unit for unit in units if unit.value == maps.value), maps)


def _wanted(layers: str | list[str] | tuple[str, ...]) -> list[str]:
    wanted = [layers] if isinstance(layers, str) else layers
    is_list = isinstance(wanted, list | tuple) and all(isinstance(name, str) for name in wanted)
    if not is_list or not wanted:
        raise ConvscopeError(
            f"layers={layers!r} for a gallery",
            "'all', or names or addresses of convolutions or modules",
            "name at least one, or leave layers out for all",
        )
    return list(wanted)
