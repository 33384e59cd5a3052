"""Where the positions of a map lie in the image, and where a transformation of the image takes them.

A position lies at the middle of its receptive field. Where that isn't known, positions are taken to be spread
evenly over the image, as strides that divide it would have it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from convscope.sight.transforming.transformation import Transformation
from convscope.tape.receptive_field import ReceptiveField

LEAST_SHARE = 0.25


@dataclass(frozen=True)
class Aligned:
    """How a transformed image's map is taken back.

    Attributes:
        indices: the positions, in the flattened map, that are compared.
        y, x: where the transformed image's map holds what was there.
    """

    indices: Tensor
    y: Tensor
    x: Tensor


@dataclass(frozen=True)
class Grid:
    """A map's positions in the image.

    Attributes:
        map_size, image_size: (height, width).
        middle: (y, x) of the first position, in pixels.
        stride: pixels between positions.
        reach: pixels that a position sees to either side of its middle, rounded up; None: unknown.
    """

    map_size: tuple[int, int]
    image_size: tuple[int, int]
    middle: tuple[float, float]
    stride: tuple[float, float]
    reach: tuple[float, float] | None

    @property
    def has_interior(self) -> bool:
        """Whether at least a quarter of the positions see nothing beyond the image's border."""
        return self.reach is not None and float(self._interior().double().mean()) >= LEAST_SHARE

    def aligned(self, step: Transformation) -> Aligned:
        """Return the positions that can be compared after a transformation, and where they went.

        With an interior, these are positions which before and after see nothing but the image itself: neither
        padding nor what came in at the border. Without one, positions whose middle stays in the image.
        """
        y, x = self._middles()
        moved_y, moved_x = step.moved(y, x, self.image_size)
        rows, columns = (
            (moved - start) / gap for moved, start, gap in zip((moved_y, moved_x), self.middle, self.stride)
        )
        rows, columns = (_settled(places) for places in (rows, columns))
        usable = torch.ones_like(rows, dtype=torch.bool)
        for places, size in zip((rows, columns), self.map_size):
            usable &= (places >= 0) & (places <= size - 1)
        if self.has_interior:
            usable &= self._interior() & self._sees_image(rows, columns, step)
        indices = usable.flatten().nonzero().flatten()
        return Aligned(indices, rows.flatten()[indices], columns.flatten()[indices])

    def _middles(self) -> tuple[Tensor, Tensor]:
        lines = [
            start + gap * torch.arange(size, dtype=torch.float64)
            for size, start, gap in zip(self.map_size, self.middle, self.stride)
        ]
        y, x = torch.meshgrid(*lines, indexing="ij")
        return y, x

    def _interior(self) -> Tensor:
        assert self.reach is not None
        inside = torch.ones(self.map_size, dtype=torch.bool)
        for middles, reach, length in zip(self._middles(), self.reach, self.image_size):
            inside &= (middles - reach >= 0) & (middles + reach <= length - 1)
        return inside

    def _sees_image(self, rows: Tensor, columns: Tensor, step: Transformation) -> Tensor:
        """Whether the positions around each point see, after the transformation, the image itself only."""
        assert self.reach is not None
        inside = torch.ones_like(rows, dtype=torch.bool)
        extremes = [
            [
                start + gap * places.floor() - reach,
                start + gap * places.ceil() + reach,
            ]
            for places, start, gap, reach in zip((rows, columns), self.middle, self.stride, self.reach)
        ]
        margin = step.shrinks_by - 1
        for y in extremes[0]:
            for x in extremes[1]:
                for corner in (((y, x)), step.source(y, x, self.image_size)):
                    spare = margin if corner[0] is not y else 0.0
                    for points, length in zip(corner, self.image_size):
                        inside &= (points >= spare - 1e-9) & (points <= length - 1 - spare + 1e-9)
        return inside


def grid(field: ReceptiveField | None, map_size: tuple[int, int], image_size: tuple[int, int]) -> Grid:
    """Return where a map's positions lie.

    Example:
        >>> grid(ReceptiveField((3, 3), (2, 2), (-1, -1)), (4, 4), (8, 8)).middle
        (0.0, 0.0)
        >>> grid(None, (4, 4), (8, 8)).middle
        (0.5, 0.5)
    """
    if field is None or min(field.stride) < 1:
        strides = tuple(length / size for length, size in zip(image_size, map_size))
        return Grid(
            map_size,
            image_size,
            ((strides[0] - 1) / 2, (strides[1] - 1) / 2),
            (strides[0], strides[1]),
            None,
        )
    reach = ((field.size[0] - 1) / 2, (field.size[1] - 1) / 2)
    middle = (field.offset[0] + reach[0], field.offset[1] + reach[1])
    return Grid(map_size, image_size, middle, (float(field.stride[0]), float(field.stride[1])), reach)


def _settled(places: Tensor) -> Tensor:
    """Whole numbers where rounding is all that keeps them from being whole."""
    return torch.where((places - places.round()).abs() < 1e-9, places.round(), places)
