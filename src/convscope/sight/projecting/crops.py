"""Windows of an image which give a unit the same activation and the same projection as the whole image.

A unit sees only its receptive field. A window that holds that field, whose edges lie on the network's grid,
or on the image's own border, gives it bit for bit the same inputs, for a fraction of the work: the zeros
that padding puts at the window's inner edges lie outside of everything that the unit sees.

All windows of a layer have one size, so that they can be batched: the smallest which holds a receptive
field from any place of the grid, and which, pushed against the image's far border, still lies on the grid.

Limits: maps whose far margin was cut off have no place in a window for some of their last positions; where
maps are added to coordinates, embeddings or masks of the whole map, windows get others. Whoever uses windows
compares the unit's activation with the whole image's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.tape.receptive_field import ReceptiveField


@dataclass(frozen=True)
class Window:
    """A part of the image for one position of a unit's map.

    Attributes:
        top, left: its corner, in pixels.
        position: the unit's (y, x) in the window's own map.
    """

    top: int
    left: int
    position: tuple[int, int]


@dataclass(frozen=True)
class Cropping:
    """How a layer's windows are cut.

    Attributes:
        field: the layer's receptive field.
        image_size: (height, width).
    """

    field: ReceptiveField
    image_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the windows."""
        return self._length(0), self._length(1)

    def window(self, position: tuple[int, int]) -> Window:
        """Return the window for a position of the whole image's map.

        Example:
            >>> cropping = Cropping(ReceptiveField((7, 7), (2, 2), (-1, -1)), (128, 128))
            >>> cropping.size, cropping.window((10, 63))
            ((8, 8), Window(top=18, left=120, position=(1, 3)))
        """
        (top, y), (left, x) = (self._start(axis, position[axis]) for axis in (0, 1))
        return Window(top, left, (y, x))

    def crops(
        self, images: Float[Tensor, "n c h w"], windows: Sequence[Window]
    ) -> Float[Tensor, "n c wh ww"]:
        """Return one window of each image."""
        height, width = self.size
        return torch.stack(
            [
                image[:, window.top : window.top + height, window.left : window.left + width]
                for image, window in zip(images, windows, strict=True)
            ]
        )

    def _length(self, axis: int) -> int:
        size, stride, whole = self.field.size[axis], self.field.stride[axis], self.image_size[axis]
        shortest = size + max(self.field.offset[axis], 0) + stride - 1
        return min(whole, shortest + (whole - shortest) % stride)

    def _start(self, axis: int, place: int) -> tuple[int, int]:
        stride = self.field.stride[axis]
        # Of a map whose margin is cut off, a window's own margin must be cut off, too.
        seen_from = min(self.field.offset[axis], 0) + place * stride
        last = self.image_size[axis] - self._length(axis)
        start = min(max(seen_from // stride * stride, 0), last)
        return start, place - start // stride


def cropping(field: ReceptiveField | None, image_size: tuple[int, int]) -> Cropping | None:
    """Return how to cut windows for a layer, or None where there is nothing to gain."""
    if field is None or min(field.stride) < 1:
        return None
    cut = Cropping(field, image_size)
    return cut if cut.size[0] * cut.size[1] < image_size[0] * image_size[1] else None
