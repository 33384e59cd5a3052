"""The second look: what the winners' activations project to.

Goes through the winning images once, in batches; within a batch every (unit, image) pair of a layer has its
own copy of the image, or of the window that the unit sees, and one backward pass serves them all, since
nothing mixes samples in evaluation mode.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.sight.crops import Window, cropping
from convscope.sight.projection import Box, Scores
from convscope.sight.projector import Projector, box_of
from convscope.sight.scores import Spot, judge
from convscope.sight.units import UnitMaps
from convscope.tape.receptive_field import ReceptiveField

BATCH = 32
TOLERANCE = 5e-3  # of a map's largest value: TF32 and other batch sizes move it by up to a thousandth


@dataclass(frozen=True)
class Place:
    """A unit's win: in which image, at which rank, with which activation, at which (y, x) of its map."""

    image: int
    unit: int
    rank: int
    value: float
    position: tuple[int, int]


@dataclass(frozen=True)
class View:
    """A win with its pictures.

    Attributes:
        place: see :class:`Place`.
        box: the pixels that the unit sees there.
        patch: those pixels, as the network gets them, (c, h, w).
        projection: the projection's part there, (c, h, w).
        scores: None for those that weren't judged.
    """

    place: Place
    box: Box
    patch: NDArray[np.float32]
    projection: NDArray[np.float32]
    scores: Scores | None


@dataclass(frozen=True)
class LayerLook:
    """One layer's units, its receptive field, its wins by image, and the units to judge."""

    maps: UnitMaps
    field: ReceptiveField | None
    places: dict[int, list[Place]]
    judged: frozenset[int]


def look(
    projector: Projector, layer: LayerLook, indices: list[int], images: Float[Tensor, "n c h w"]
) -> Iterator[View]:
    """Yield the views of one layer's wins in a batch of images.

    Args:
        projector: runs the model.
        layer: whose wins are looked at.
        indices: of the images in the data set, ascending.
        images: on the model's device.

    Raises:
        ConvscopeError: an image activates a unit otherwise than in the scan.
    """
    rows = {index: row for row, index in enumerate(indices)}
    places = [place for index in indices for place in layer.places.get(index, ())]
    shown = _array(images)
    for start in range(0, len(places), BATCH):
        chunk = places[start : start + BATCH]
        own = [rows[place.image] for place in chunk]
        for place, row, (projection, corner) in zip(
            chunk, own, _projections(projector, layer, chunk, images[own])
        ):
            box = box_of(layer.field, place.position, (images.shape[2], images.shape[3]))
            scores = None
            if place.rank == 0 and place.unit in layer.judged:
                scores = _judged(projector, layer, place, images[row : row + 1])
            part = projection[
                :, box.top - corner[0] : box.bottom - corner[0], box.left - corner[1] : box.right - corner[1]
            ]
            yield View(place, box, shown[row, :, box.top : box.bottom, box.left : box.right], part, scores)


def _projections(
    projector: Projector, layer: LayerLook, chunk: list[Place], images: Tensor
) -> list[tuple[NDArray[np.float32], tuple[int, int]]]:
    """Each win's projection, of its window or of the whole image, and where that begins."""
    cut = cropping(layer.field, (images.shape[2], images.shape[3]))
    if cut is not None:
        windows = [cut.window(place.position) for place in chunk]
        height, width = cut.size
        crops = torch.stack(
            [
                image[:, window.top : window.top + height, window.left : window.left + width]
                for image, window in zip(images, windows)
            ]
        )
        try:
            found = _project(projector, layer, chunk, crops, windows)
        except Exception:  # a branch may need more room than the layer's path; networks may check their input
            found = None
        if found is not None:
            return [(picture, (window.top, window.left)) for picture, window in zip(found, windows)]
    # The whole images: also where a network turns out not to see its windows as it sees them in the image.
    found = _project(projector, layer, chunk, images, [Window(0, 0, place.position) for place in chunk])
    if found is None:
        raise ConvscopeError(
            f"images {chunk[0].image} to {chunk[-1].image}: they activate units of {layer.maps.name} "
            "otherwise than at the first look",
            "images that are the same, in the same order, each time they are read",
            "turn off shuffling and random augmentation",
        )
    return [(picture, (0, 0)) for picture in found]


def _project(
    projector: Projector, layer: LayerLook, chunk: list[Place], images: Tensor, windows: list[Window]
) -> NDArray[np.float32] | None:
    """The projections, or None if the activations aren't those of the scan."""
    leaves, maps = projector.forward(layer.maps.unit_address, images)
    where = (
        torch.arange(len(chunk)),
        torch.tensor([place.unit for place in chunk]),
        *(torch.tensor([window.position[axis] for window in windows]) for axis in (0, 1)),
    )
    if any(int(index.max()) >= size for index, size in zip(where, maps.shape)):
        return None
    values = maps.detach()[where].double().cpu()
    expected = torch.tensor([place.value for place in chunk], dtype=torch.float64)
    tolerance = max(TOLERANCE, 16 * torch.finfo(maps.dtype).eps)
    if not bool(((values - expected).abs() <= tolerance * float(maps.detach().abs().amax())).all()):
        return None
    seed = torch.zeros_like(maps)
    seed[where] = 1
    return _array(projector.backward(leaves, maps, seed))


def _judged(projector: Projector, layer: LayerLook, place: Place, image: Tensor) -> Scores:
    seeds: list[tuple[int, tuple[int, ...]]] = [(place.unit, place.position)]
    spot = Spot(
        layer.maps.unit_address,
        place.unit,
        place.position,
        box_of(layer.field, place.position, (image.shape[2], image.shape[3])),
    )
    return judge(projector, image, spot, projector.project(spot.address, image, seeds)[0])


def _array(images: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = images.detach().to("cpu", torch.float32).numpy()
    return array
