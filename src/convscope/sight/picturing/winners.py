"""The second look: what the winners' activations project to, a block of images at a time.

Where units see a small part of the image, the windows that they see are cut out and batched: windows of
different images and units, one forward pass and one backward pass for all of them, since nothing mixes
samples in evaluation mode. Gates and statistics over the whole image that the rule holds fast are recorded
in one run on the images, and held in the runs on their windows. Where units see most of the image, one
forward pass on a few copies of it serves all such layers, and each backward pass through the graph that is
kept serves as many wins.

Batches are made within a block, so that nothing depends on how the work is divided.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.sight.picturing.places import LayerLook, Place
from convscope.sight.projecting.crops import Window
from convscope.sight.projecting.holding import Frozen
from convscope.sight.projecting.projection import Box
from convscope.sight.projecting.projector import Projector

BATCH = 32  # windows, or copies of images
MOST_COPIES, MANY_WINS = 8, 16  # of an image, and its wins for each copy
TOLERANCE = 1e-4  # of a map's largest value: other batch sizes move it by some 1e-6
TOLERANCE_OFF_CPU = 5e-3  # TF32 moves it by up to a thousandth


class ImagesChangedError(ConvscopeError):
    """Images aren't what they were when they were scanned, so that nothing of the scan holds."""


@dataclass(frozen=True)
class View:
    """A win with its pictures.

    Attributes:
        place: see :class:`Place`.
        box: the pixels that the unit sees there.
        patch: those pixels, as the network gets them, (c, h, w).
        projection: the projection's part there, (c, h, w); None for a layer without projections.
        is_whole: whether the whole image was projected to, not a window.
    """

    place: Place
    box: Box
    patch: NDArray[np.float32]
    projection: NDArray[np.float32] | None
    is_whole: bool


@dataclass(frozen=True)
class _Found:
    """A projection, (c, h, w), whose corner lies at (top, left) of the image."""

    place: Place
    picture: Tensor
    corner: tuple[int, int]
    is_whole: bool


def look(
    projector: Projector,
    layers: Sequence[LayerLook],
    indices: Sequence[int],
    images: Float[Tensor, "n c h w"],
) -> Iterator[tuple[LayerLook, View]]:
    """Yield the views of all layers' wins in a block of images, in no particular order.

    Args:
        projector: runs the model.
        layers: whose wins are looked at.
        indices: of the images in the data set, ascending.
        images: on the model's device.

    Raises:
        ConvscopeError: an image activates a unit otherwise than in the scan.
    """
    block = _Block(projector, dict(zip(indices, images, strict=True)))
    # On other devices than the CPU, a batch of copies of an image is faster than one image after another.
    one_by_one = images.device.type == "cpu"
    whole: list[LayerLook] = []
    for layer in layers:
        if layer.not_projected is not None:
            yield from ((layer, view) for view in block.patches(layer))
        elif layer.windows is not None:
            yield from ((layer, block.view(layer, found)) for found in block.in_windows(layer))
        elif one_by_one:
            whole.append(layer)
        else:
            yield from ((layer, block.view(layer, found)) for found in block.in_copies(layer))
    for index in indices:
        yield from ((layer, block.view(layer, found)) for layer, found in block.in_image(whole, index))


class _Block:
    """Some images, and what a projector makes of them."""

    def __init__(self, projector: Projector, images: dict[int, Tensor]) -> None:
        self._projector, self._images = projector, images
        self._rows = {index: row for row, index in enumerate(images)}
        self._frozen: Frozen | None = None

    def view(self, layer: LayerLook, found: _Found) -> View:
        """Return a win with its pictures."""
        place, (top, left) = found.place, found.corner
        box = layer.box(place.position)
        part = found.picture[:, box.top - top : box.bottom - top, box.left - left : box.right - left]
        image = self._images[place.image]
        patch = image[:, box.top : box.bottom, box.left : box.right]
        return View(place, box, _array(patch), _array(part), found.is_whole)

    def patches(self, layer: LayerLook) -> Iterator[View]:
        """Yield a layer's wins without projections."""
        for place in self._places(layer):
            box = layer.box(place.position)
            patch = self._images[place.image][:, box.top : box.bottom, box.left : box.right]
            yield View(place, box, _array(patch), None, is_whole=False)

    def in_windows(self, layer: LayerLook) -> Iterator[_Found]:
        """Project a layer's wins to windows of their images; to the images where that isn't the same."""
        cut = layer.windows
        assert cut is not None
        wins = [(cut.window(place.position), place) for place in self._places(layer)]
        # Alike positions together: the signals of a batch then fill the same small part of its maps.
        wins.sort(key=lambda win: (win[0].position, win[1].unit, win[1].rank))
        for start in range(0, len(wins), BATCH):
            chunk = wins[start : start + BATCH]
            windows, places = [window for window, _ in chunk], [place for _, place in chunk]
            try:
                pictures = self._projected_windows(layer, places, windows)
            # A branch may need more room than the layer's path; networks may check their input.
            except Exception:
                pictures = None
            if pictures is None:
                yield from self._copies(layer, places)
                continue
            for place, picture, window in zip(places, pictures, windows, strict=True):
                yield _Found(place, picture, (window.top, window.left), is_whole=False)

    def in_copies(self, layer: LayerLook) -> Iterator[_Found]:
        """Project a layer's wins to copies of their images."""
        places = self._places(layer)
        for start in range(0, len(places), BATCH):
            yield from self._copies(layer, places[start : start + BATCH])

    def in_image(self, layers: Sequence[LayerLook], index: int) -> Iterator[tuple[LayerLook, _Found]]:
        """Project several layers' wins in an image to it: one forward pass serves them all."""
        layers = [layer for layer in layers if index in layer.places]
        if not layers:
            return
        # Passes over a batch cost less for each of its samples; a forward pass must serve many wins to pay.
        copies = min(max(sum(len(layer.places[index]) for layer in layers) // MANY_WINS, 1), MOST_COPIES)
        images = self._images[index][None].expand(copies, -1, -1, -1)
        leaves, maps = self._projector.forward_to([layer.maps.unit_address for layer in layers], images)
        for layer in layers:
            own = maps[layer.maps.unit_address]
            seed = torch.zeros_like(own)
            # In the order of their positions: the signals of a pass then fill the same part of the maps.
            wins = sorted(layer.places[index], key=lambda place: (place.position, place.unit))
            for start in range(0, len(wins), copies):
                places = wins[start : start + copies]
                rows, windows = list(range(len(places))), [Window(0, 0, place.position) for place in places]
                if not _as_scanned(own, rows, places, windows):
                    raise _changed(layer, places)
                where = _where(rows, places, windows)
                seed[where] = 1
                pictures = self._projector.backward(leaves, own, seed, keep=True)
                seed[where] = 0
                for place, picture in zip(places, pictures, strict=False):
                    yield layer, _Found(place, picture, (0, 0), is_whole=True)

    def _places(self, layer: LayerLook) -> list[Place]:
        return [place for index in self._images for place in layer.places.get(index, ())]

    def _copies(self, layer: LayerLook, places: list[Place]) -> Iterator[_Found]:
        windows = [Window(0, 0, place.position) for place in places]
        images = torch.stack([self._images[place.image] for place in places])
        pictures = self._projected(layer, images, places, windows)
        if pictures is None:
            raise _changed(layer, places)
        for place, picture in zip(places, pictures, strict=True):
            yield _Found(place, picture, (0, 0), is_whole=True)

    def _projected_windows(
        self, layer: LayerLook, places: list[Place], windows: list[Window]
    ) -> Tensor | None:
        assert layer.windows is not None
        crops = layer.windows.crops(torch.stack([self._images[place.image] for place in places]), windows)
        with self._holding([self._rows[place.image] for place in places]):
            return self._projected(layer, crops, places, windows)

    def _holding(self, rows: list[int]) -> AbstractContextManager[None]:
        if not self._projector.holds:
            return nullcontext()
        if self._frozen is None:
            self._frozen = self._projector.recorded(torch.stack(list(self._images.values())))
        return self._projector.holding(self._frozen.rows(rows))

    def _projected(
        self, layer: LayerLook, images: Tensor, places: list[Place], windows: list[Window]
    ) -> Tensor | None:
        """The projections, or None if the activations aren't those of the scan."""
        leaves, maps = self._projector.forward(layer.maps.unit_address, images)
        rows = list(range(len(places)))
        if not _as_scanned(maps, rows, places, windows):
            return None
        seed = torch.zeros_like(maps)
        seed[_where(rows, places, windows)] = 1
        return self._projector.backward(leaves, maps, seed)


def _where(rows: list[int], places: list[Place], windows: list[Window]) -> tuple[Tensor, ...]:
    units = [place.unit for place in places]
    positions = zip(*(window.position for window in windows), strict=True)
    return tuple(torch.tensor(each) for each in (rows, units, *positions))


def _as_scanned(maps: Tensor, rows: list[int], places: list[Place], windows: list[Window]) -> bool:
    where = _where(rows, places, windows)
    if any(int(index.max()) >= size for index, size in zip(where, maps.shape, strict=True)):
        return False
    values = maps.detach()[where].double().cpu()
    expected = torch.tensor([place.value for place in places], dtype=torch.float64)
    return bool(((values - expected).abs() <= rounding_of(maps)).all())


def rounding_of(maps: Tensor) -> float:
    """Return by how much activations may differ between runs of batches of different sizes."""
    least = TOLERANCE if maps.device.type == "cpu" else TOLERANCE_OFF_CPU
    return max(least, 16 * torch.finfo(maps.dtype).eps) * float(maps.detach().abs().amax())


def _changed(layer: LayerLook, places: list[Place]) -> ConvscopeError:
    return ImagesChangedError(
        f"images {places[0].image} to {places[-1].image}: they activate units of {layer.maps.name} "
        "otherwise than at the first look",
        "images that are the same, in the same order, each time they are read",
        "turn off shuffling and random augmentation",
    )


def _array(images: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = images.detach().to("cpu", torch.float32).numpy()
    return array
