"""Which values of a run the layers asked for mean."""

from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.sight.corresponding.features import Site
from convscope.sight.project import locate
from convscope.sight.projecting.below import Below
from convscope.sight.units.maps import units_of
from convscope.sight.units.own_images import require_own_images
from convscope.tape import Tape


def sites_of(
    model: nn.Module, tape: Tape, layers: str | list[str] | tuple[str, ...]
) -> tuple[tuple[Site, ...], tuple[str, ...]]:
    """Return where the features of some layers stand, and which convolutions ``"all"`` leaves out, and why.

    Args:
        model: the network.
        tape: of one run in evaluation mode with two images.
        layers: ``"all"`` convolutions, or names: of a convolution, whose units after normalisation and
            activation are meant, as in a gallery; of another module, whose output is; or an address.

    Raises:
        ConvscopeError: no layer; one that the network doesn't have or run; one whose features depend on the
            other images of a batch.
    """
    units, left_out = units_of(tape)
    known = {name: unit for unit in units for name in (unit.name, unit.address)}
    if layers == "all":
        names, without = [unit.name for unit in units], left_out
    else:
        names, without = _names(layers), ()
    if not names:
        raise ConvscopeError("a network without convolutions over the image", "at least one", "name layers")
    sites = list[Site]()
    for name in names:
        unit = known.get(name)
        address, value = (
            locate(model, tape, name) if unit is None else (unit.unit_address, unit.value)
        )  # fmt: skip
        sites.append(Site(name, address, value))
    require_own_images(Below(tape), [site.value for site in sites])
    return tuple(sites), without


def _names(layers: str | list[str] | tuple[str, ...]) -> list[str]:
    names = [layers] if isinstance(layers, str) else layers
    if not isinstance(names, list | tuple) or not names:
        raise ConvscopeError(
            f"layers={layers!r}", "'all', or names or addresses of layers", "name at least one"
        )
    return list(dict.fromkeys(names))
