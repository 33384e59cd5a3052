"""The second layer's aliasing artifacts: lattices in its maps, and in its units' projections to the image.

The projections here are the plain gradient of a unit's strongest activation: it goes back through the same
strided filters as a deconvnet's, and exists for every network.

Limits: up to 32 units and four images, one position each; none for fewer than eight units that fire.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from convscope.probe import probing
from convscope.sight.projecting.projector import strongest
from convscope.sight.stems.lattice import LEAST, Peaks, Period, lattice_peaks
from convscope.sight.stems.strides import Lattice
from convscope.sight.units.maps import UnitMaps
from convscope.tape.receptive_field import ReceptiveField

NUM_UNITS, NUM_IMAGES = 32, 4
FEWEST = 8
"""Units with a projection below which a peak may well be one filter's own."""


def artifacts(
    model: nn.Module,
    second: UnitMaps,
    strides: tuple[Period, Period],
    field: ReceptiveField | None,
    images: Tensor,
) -> tuple[Lattice, Lattice]:
    """Return the lattices of the second convolution's maps and projections.

    Args:
        model: runs in evaluation mode and comes back as it was.
        second: the second convolution's units.
        strides: the first convolution's, and the pixels between two positions that the second one reads.
        field: the units' receptive field; None if it is the whole image.
        images: some, as the network gets them.
    """
    own, cumulative = strides
    some = images[:: -(-len(images) // NUM_IMAGES)]
    with torch.no_grad(), probing(model) as probe:
        in_maps = lattice_peaks(probe.run_until(second.unit_address, some), own)
    try:
        with torch.inference_mode(False), torch.enable_grad(), probing(model) as probe:
            leaves = some.detach().clone().requires_grad_()
            patches = _projections(leaves, probe.run_until(second.unit_address, leaves), field, cumulative)
    except RuntimeError as error:
        patches = Peaks(None, None, f"no gradient reaches the image ({str(error).splitlines()[0]})")
    found = patches if isinstance(patches, Peaks) else lattice_peaks(patches, cumulative, windowed=False)
    return _lattice("maps", second, own, in_maps), _lattice("projections", second, cumulative, found)


def _lattice(of: Literal["maps", "projections"], second: UnitMaps, period: Period, found: Peaks) -> Lattice:
    return Lattice(of, second.unit_address, period, found.ratio, found.p_value, found.reason)


def _projections(
    leaves: Tensor, maps: Tensor, field: ReceptiveField | None, period: Period
) -> Tensor | Peaks:
    """Patches (units, images · colours, h, w) that hold the projections of some units."""
    if not maps.requires_grad:
        return Peaks(None, None, "the layer isn't differentiable in the image")
    size = tuple(int(length) for length in leaves.shape[2:])
    seen = field.size if field else size
    cut = [
        min(max(-(-length // step), LEAST) * step, whole // step * step)
        for length, step, whole in zip(seen, period, size)
    ]
    if min(cut) < 1:
        return Peaks(None, None, "images smaller than the stride")
    units = range(0, maps.shape[1], -(-maps.shape[1] // NUM_UNITS))
    patches = []
    for unit in units:
        (gradient,) = torch.autograd.grad(maps[:, unit].amax((1, 2)).sum(), leaves, retain_graph=True)
        places = [strongest(each.detach()) for each in maps[:, unit]]
        found = [_patch(each, place, field, cut) for each, place in zip(gradient, places)]
        patches.append(torch.stack(found).flatten(0, 1))
    fire = [patch for patch in patches if bool(patch.any())]
    if len(fire) < FEWEST:
        return Peaks(None, None, f"{len(fire)} units have a projection, fewer than {FEWEST}")
    return torch.stack(fire)


def _patch(gradient: Tensor, place: tuple[int, int], field: ReceptiveField | None, cut: list[int]) -> Tensor:
    starts = [0, 0]
    if field is not None:
        starts = [
            min(max(first + at * step, 0), length - size)
            for first, at, step, length, size in zip(
                field.offset, place, field.stride, gradient.shape[1:], cut
            )
        ]
    top, left = starts
    return gradient[:, top : top + cut[0], left : left + cut[1]]
