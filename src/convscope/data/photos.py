"""``photos``: ten colour photographs that come inside scikit-image and scikit-learn, cut into patches.

The class is the photograph. Along its longer side each photograph is divided into bands, three or more and
each wider than a patch; every third, from the second on, is for validation, the others are for training. A
patch lies inside bands of one kind, so no pixel belongs to both splits: a network that has learnt a
photograph's colours and textures recognises parts of it that it has never seen. Patches are cut when they
are asked for, from photographs held in memory (13 MB).

Of the stereo pair in scikit-image only the left picture is used: both show one scene. Drawings, grey
pictures and the colour wheel aren't photographs in colour.
"""

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convscope.core.errors import ConvscopeError
from convscope.data.pictures import Pixels, fit, read_picture

_FILES = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "galaxies": ("skimage", "data/hubble_deep_field.jpg"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "retina": ("skimage", "data/retina.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "temple": ("sklearn", "datasets/images/china.jpg"),
    "tissue": ("skimage", "data/ihc.png"),
}
CLASSES: tuple[str, ...] = tuple(_FILES)
SMALLEST, LARGEST = 64, 128
"""Sides of a patch as it is cut, in pixels. Other sizes are resized from the nearest of these."""
PER_CLASS = {"train": 200, "validation": 50}
"""Number of patches of each photograph in each split."""

_LEAST_BANDS = 3
_BAND = 1.5  # width of a band, in patches, where the photograph is long enough for three
# A patch whose grey levels deviate less than this (of 255) is black sky or black margin, and is drawn again.
_FLAT = 4.0
_DRAWS = 50


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels in a photograph.

    Attributes:
        photo: number of the photograph, which is also the label.
        top: first row.
        left: first column.
        height: number of rows.
        width: number of columns.
    """

    photo: int
    top: int
    left: int
    height: int
    width: int

    def cut(self) -> Pixels:
        """Return the pixels inside, uint8 ``(height, width, 3)``; a view of the photograph."""
        rows, columns = slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)
        return photographs()[self.photo][rows, columns]


class PhotoPatches:
    """The patches of one split; see the module.

    Args:
        split: ``"train"`` or ``"validation"``.
        size: height and width of the patches as they are returned.
        channels: 3, or 1 for grey.
        seed: which places are cut; the same seed cuts the same places.

    Attributes:
        boxes: where each patch lies.
        labels: number of the photograph of each patch.
    """

    def __init__(self, split: str, size: tuple[int, int], channels: int, seed: int) -> None:
        self.boxes = draw_boxes(split, size, seed)
        self.labels = tuple(box.photo for box in self.boxes)
        self._size = size
        self._channels = channels

    def __len__(self) -> int:
        return len(self.boxes)

    def read(self, index: int) -> Pixels:
        """Return one patch, uint8 ``(h, w, channels)``."""
        return fit(self.boxes[index].cut(), self._size, self._channels)


@cache
def photographs() -> tuple[Pixels, ...]:
    """Return the photographs in the order of :data:`CLASSES`, uint8 ``(h, w, 3)`` each.

    They are read from the packages' folders, so nothing is downloaded and the packages aren't imported.

    Raises:
        ConvscopeError: scikit-image or scikit-learn isn't installed, or lacks a file.
    """
    return tuple(read_picture(_path(package, name)) for package, name in _FILES.values())


def regions(photo: Pixels, split: str, cut: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Return the rows and columns that a split's patches of one photograph come from.

    Args:
        photo: the photograph, ``(h, w, 3)``.
        split: ``"train"`` or ``"validation"``.
        cut: height and width of a patch as it is cut.
    """
    axis = 1 if photo.shape[1] >= photo.shape[0] else 0
    length = photo.shape[axis]
    num_bands = max(_LEAST_BANDS, int(length / (_BAND * cut[axis])))
    edges = [round(band * length / num_bands) for band in range(num_bands + 1)]
    inside = [(band % 3 == 1) == (split == "validation") for band in range(num_bands)]
    spans: list[slice] = []
    for band in range(num_bands):
        if inside[band] and band and inside[band - 1]:
            spans[-1] = slice(spans[-1].start, edges[band + 1])
        elif inside[band]:
            spans.append(slice(edges[band], edges[band + 1]))
    across = slice(0, photo.shape[1 - axis])
    return [(across, span) if axis else (span, across) for span in spans]


def draw_boxes(split: str, size: tuple[int, int], seed: int) -> tuple[Box, ...]:
    """Return where a split's patches lie: :data:`PER_CLASS` places a photograph, drawn uniformly.

    Args:
        split: ``"train"`` or ``"validation"``.
        size: height and width of the patches as they are returned.
        seed: of the places.
    """
    cut = (_clamped(size[0]), _clamped(size[1]))
    boxes: list[Box] = []
    for number, photo in enumerate(photographs()):
        places = _places(regions(photo, split, cut), cut)
        random = np.random.default_rng([seed, number, split == "train"])
        boxes += [_draw(number, places, cut, random) for _ in range(PER_CLASS[split])]
    return tuple(boxes)


def _places(parts: list[tuple[slice, slice]], cut: tuple[int, int]) -> NDArray[np.int64]:
    """All top left corners of patches inside the parts, ``(number, 2)``."""
    return np.concatenate(
        [
            np.mgrid[rows.start : rows.stop - cut[0] + 1, columns.start : columns.stop - cut[1] + 1]
            .reshape(2, -1)
            .T
            for rows, columns in parts
        ]
    )


def _draw(photo: int, places: NDArray[np.int64], cut: tuple[int, int], random: np.random.Generator) -> Box:
    for _ in range(_DRAWS):
        top, left = places[random.integers(len(places))].tolist()
        box = Box(photo, top, left, *cut)
        if box.cut().mean(axis=2).std() >= _FLAT:
            break
    return box


def _clamped(side: int) -> int:
    return min(max(side, SMALLEST), LARGEST)


def _path(package: str, name: str) -> Path:
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / name if spec is not None and spec.origin is not None else None
    if path is None or not path.is_file():
        raise ConvscopeError(
            f"data set 'photos': {package} {'is not installed' if path is None else f'lacks {name}'}",
            "scikit-image and scikit-learn, whose photographs it is cut from",
            "pip install 'convscope[data]'",
        )
    return path
