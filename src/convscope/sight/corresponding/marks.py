"""Marked parts of images, random patches of the same sizes, and how both are masked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.sight.projecting.projection import Box

Mark = Box | tuple[int, int, int, int] | tuple[int, int] | None
"""A part in one image: a box, (top, left, bottom, right), a point (y, x), or None where it isn't seen."""

Boxes = tuple[Box | None, ...]
Placement = Literal["anywhere", "together"]


@dataclass(frozen=True)
class Masking:
    """How parts are masked, and with what they are compared.

    Attributes:
        fill: what masked pixels become, as the network gets them: one number, or one a channel; 0 is the
            mean colour of normalised images.
        size: (height, width) of the boxes put round points.
        draws: how many times random patches are drawn for each image.
        seed: of the draws.
        placement: ``"anywhere"``: each image has a random place of its own, as in Zeiler and Fergus's
            table; ``"together"``: all boxes of the part are moved by one random step, so that random
            patches lie as close to one another from image to image as the part does.
    """

    fill: float | tuple[float, ...] = 0.0
    size: tuple[int, int] | None = None
    draws: int = 20
    seed: int = 0
    placement: Placement = "anywhere"

    def __post_init__(self) -> None:
        for name, least in (("draws", 1), ("seed", 0)):
            value = getattr(self, name)
            if not _is_whole(value) or value < least:
                raise ConvscopeError(
                    f"{name}={value!r}", f"a whole number from {least}", "20 draws are usual"
                )
        if self.placement not in ("anywhere", "together"):
            raise ConvscopeError(
                f"placement={self.placement!r}",
                "'anywhere' or 'together'",
                "'anywhere' is Zeiler and Fergus's",
            )
        values = self.fill if isinstance(self.fill, tuple) else (self.fill,)
        if not all(isinstance(each, Real) and isfinite(each) for each in values):
            raise ConvscopeError(f"fill={self.fill!r}", "finite numbers", "0 is the mean colour")

    def colour(self, channels: int) -> tuple[float, ...]:
        """Return the fill of each channel.

        Raises:
            ConvscopeError: there are other numbers than channels.
        """
        values = self.fill if isinstance(self.fill, tuple) else (self.fill,) * channels
        if len(values) != channels:
            raise ConvscopeError(
                f"fill with {len(values)} numbers for images of {channels} channels",
                "one number, or one a channel",
                "give as many as the images have channels",
            )
        return tuple(map(float, values))


def read_marks(
    parts: Mapping[str, Sequence[Mark]], image_size: tuple[int, int], size: tuple[int, int] | None
) -> dict[str, Boxes]:
    """Return every part's boxes, one for each image.

    Args:
        parts: marks by name; all lists have the images' length.
        image_size: (height, width).
        size: of the boxes round points; at the image's border they are moved inwards.

    Raises:
        ConvscopeError: no parts; a mark that isn't one, is empty or lies outside the image, a point without
            a size; lists of different lengths.

    Example:
        >>> read_marks({"nose": [(5, 5), None, (0, 9)]}, (10, 10), (3, 3))["nose"][2]
        Box(top=0, left=7, bottom=3, right=10)
    """
    if not isinstance(parts, Mapping) or not parts:
        raise ConvscopeError(
            f"parts of type {type(parts).__name__}" if parts else "no parts",
            "marks by the part's name, such as {'nose': [(top, left, bottom, right), …]}",
            "mark at least one part",
        )
    for name, marks in parts.items():
        if not isinstance(marks, Sequence) or isinstance(marks, str):
            raise ConvscopeError(
                f"part {name!r} of type {type(marks).__name__}",
                "a list of marks, one for every image",
                "put None where the part isn't seen",
            )
    lengths = {len(marks) for marks in parts.values()}
    if len(lengths) > 1:
        raise ConvscopeError(
            f"parts with {' and '.join(map(str, sorted(lengths)))} marks",
            "one mark for every image",
            "put None where a part isn't seen",
        )
    return {
        name: tuple(_box(mark, f"part {name!r} in image {index}", image_size, size)
                    for index, mark in enumerate(marks))
        for name, marks in parts.items()
    }  # fmt: skip


def random_patches(boxes: Boxes, image_size: tuple[int, int], masking: Masking, draw: int) -> Boxes:
    """Return one draw of patches of the boxes' sizes, the same for the same boxes, seed and draw.

    Every place inside the image is as likely as any other; patches may overlap the part.
    """
    generator = np.random.default_rng((masking.seed, draw))
    if masking.placement == "together":
        known = [box for box in boxes if box is not None]
        up, left = min(box.top for box in known), min(box.left for box in known)
        down = image_size[0] - max(box.bottom for box in known)
        right = image_size[1] - max(box.right for box in known)
        y, x = int(generator.integers(-up, down + 1)), int(generator.integers(-left, right + 1))
        return tuple(box and Box(box.top + y, box.left + x, box.bottom + y, box.right + x) for box in boxes)
    patches = list[Box | None]()
    for box in boxes:
        y, x = generator.random(2)  # drawn for every image, so that a missing mark moves no other patch
        if box is None:
            patches.append(None)
            continue
        top = int(y * (image_size[0] - box.height + 1))
        left = int(x * (image_size[1] - box.width + 1))
        patches.append(Box(top, left, top + box.height, left + box.width))
    return tuple(patches)


def masked(
    images: Float[Tensor, "n c h w"], boxes: Sequence[Box], fill: tuple[float, ...]
) -> Float[Tensor, "n c h w"]:
    """Return copies of images in each of which one box is filled with a colour."""
    result = images.clone()
    colour = torch.tensor(fill, dtype=images.dtype, device=images.device)[:, None, None]
    for image, box in zip(result, boxes, strict=True):
        image[:, box.top : box.bottom, box.left : box.right] = colour
    return result


def covered(boxes: Boxes, image_size: tuple[int, int], masking: Masking) -> float:
    """Return the mean share that the boxes and the random patches of their images have in common."""
    shares = [
        _shared(box, patch)
        for draw in range(masking.draws)
        for box, patch in zip(boxes, random_patches(boxes, image_size, masking, draw))
        if box is not None and patch is not None
    ]
    return sum(shares) / len(shares)


def overlap(boxes: Boxes) -> float:
    """Return the mean share that the boxes of two images have in common (intersection over union)."""
    known = [box for box in boxes if box is not None]
    shares = [_shared(one, other) for index, one in enumerate(known) for other in known[:index]]
    return sum(shares) / len(shares) if shares else 0.0


def _shared(one: Box, other: Box) -> float:
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    width = min(one.right, other.right) - max(one.left, other.left)
    common = max(height, 0) * max(width, 0)
    return common / (one.height * one.width + other.height * other.width - common)


def _box(mark: Any, where: str, image_size: tuple[int, int], size: tuple[int, int] | None) -> Box | None:
    if mark is None:
        return None
    numbers = (mark.top, mark.left, mark.bottom, mark.right) if isinstance(mark, Box) else mark
    if not isinstance(numbers, tuple | list) or not all(_is_whole(each) for each in numbers):
        raise _not_a_mark(mark, where)
    values = [int(each) for each in numbers]
    if len(values) == 2:
        return _round(values, where, image_size, size)
    if len(values) != 4:
        raise _not_a_mark(mark, where)
    top, left, bottom, right = values
    if not (0 <= top < bottom <= image_size[0] and 0 <= left < right <= image_size[1]):
        raise ConvscopeError(
            f"{where}: the box {tuple(values)}",
            f"one that isn't empty and lies inside the image of {image_size[0]} × {image_size[1]} pixels",
            "give (top, left, bottom, right) in pixels, the last row and column excluded",
        )
    return Box(top, left, bottom, right)


def _round(point: list[int], where: str, image_size: tuple[int, int], size: tuple[int, int] | None) -> Box:
    is_size = isinstance(size, tuple | list) and len(size) == 2 and all(_is_whole(side) for side in size)
    if size is None or not is_size or not all(0 < side <= room for side, room in zip(size, image_size)):
        raise ConvscopeError(
            f"{where}: a point, with size={size!r}",
            f"the (height, width) of the box round it, within {image_size[0]} × {image_size[1]} pixels",
            "pass Masking(size=(height, width))",
        )
    if not all(0 <= place < room for place, room in zip(point, image_size)):
        raise ConvscopeError(
            f"{where}: the point {tuple(point)}",
            f"one inside the image of {image_size[0]} × {image_size[1]} pixels",
            "give (y, x) in pixels",
        )
    top, left = (
        min(max(place - side // 2, 0), room - side) for place, side, room in zip(point, size, image_size)
    )
    return Box(top, left, top + size[0], left + size[1])


def _is_whole(number: object) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


def _not_a_mark(mark: Any, where: str) -> ConvscopeError:
    return ConvscopeError(
        f"{where}: {mark!r}",
        "a Box, (top, left, bottom, right), a point (y, x), or None, in whole pixels",
        "round the coordinates",
    )
