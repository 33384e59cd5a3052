"""Where a value inside the network differs from the clean image's when a window of the image changes.

A position that doesn't see the window keeps its value exactly. So of a value with a receptive field only a
region has to be computed, the window's projective field, and the rest is known. All windows' regions have
one size, so that they can be batched; pushed against the map's border they hold some unchanged positions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from convscope.sight.projecting.projection import Box
from convscope.tape.receptive_field import ReceptiveField


@dataclass(frozen=True)
class Regions:
    """Rectangles of one size in a map, one for each window.

    Attributes:
        size: (height, width).
        starts: (y, x) of each one's first position; negative in the padding.
    """

    size: tuple[int, int]
    starts: tuple[tuple[int, int], ...]

    def of(self, windows: list[int]) -> "Regions":
        """Return those of some windows."""
        return Regions(self.size, tuple(self.starts[window] for window in windows))


def regions(field: ReceptiveField, map_size: tuple[int, int], boxes: tuple[Box, ...]) -> Regions:
    """Return the positions of a map that see each box.

    Args:
        field: the map's receptive field.
        map_size: (height, width) of the map.
        boxes: of pixels.

    Example:
        >>> regions(ReceptiveField((3, 3), (1, 1), (-1, -1)), (9, 9), (Box(4, 0, 5, 2),))
        Regions(size=(3, 3), starts=((3, 0),))
    """
    spans = [[_seeing(field, axis, map_size[axis], box) for box in boxes] for axis in (0, 1)]
    height, width = (max(last - first + 1 for first, last in of_axis) for of_axis in spans)
    starts = tuple(
        (min(top, map_size[0] - height), min(left, map_size[1] - width))
        for (top, _), (left, _) in zip(*spans, strict=True)
    )
    return Regions((height, width), starts)


def _seeing(field: ReceptiveField, axis: int, length: int, box: Box) -> tuple[int, int]:
    """The first and the last position that see a box; where none does, the nearest one."""
    low, high = ((box.top, box.bottom), (box.left, box.right))[axis]
    size, stride, offset = field.size[axis], field.stride[axis], field.offset[axis]
    first = min(max(-((offset + size - 1 - low) // stride), 0), length - 1)
    last = min(max((high - 1 - offset) // stride, first), length - 1)
    return first, last


def surrounded(clean: Tensor, patch: Tensor, have: Regions, need: Regions, fill: float = 0.0) -> Tensor:
    """Return patches with what lies around them in the clean map, (n, c, *need.size).

    Args:
        clean: (1, c, h, w).
        patch: (n, c, *have.size), at ``have``.
        have: within the map.
        need: may reach beyond the map.
        fill: what lies beyond it.
    """
    (top, left), padded = _padded(clean, need, fill)
    height, width = need.size
    made = torch.stack([padded[0, :, y + top :, x + left :][:, :height, :width] for y, x in need.starts])
    for one, own, (y, x), (row, column) in zip(made, patch, need.starts, have.starts, strict=True):
        down, right = row - y, column - x
        end, side = max(down + have.size[0], 0), max(right + have.size[1], 0)
        target = one[:, max(down, 0) : end, max(right, 0) : side]
        target.copy_(own[:, max(-down, 0) :, max(-right, 0) :][:, : target.shape[1], : target.shape[2]])
    return made


def _padded(clean: Tensor, need: Regions, fill: float) -> tuple[tuple[int, int], Tensor]:
    tops, lefts = ([start[axis] for start in need.starts] for axis in (0, 1))
    top, left = max(0, -min(tops)), max(0, -min(lefts))
    bottom = max(0, max(tops) + need.size[0] - clean.shape[2])
    right = max(0, max(lefts) + need.size[1] - clean.shape[3])
    if not (top or left or bottom or right):
        return (0, 0), clean
    return (top, left), torch.nn.functional.pad(clean, (left, right, top, bottom), value=fill)


def pasted(clean: Tensor, patch: Tensor, have: Regions) -> Tensor:
    """Return whole maps (n, c, h, w): the clean one with each patch in its place."""
    whole = clean.expand(len(patch), -1, -1, -1).clone()
    for one, own, (y, x) in zip(whole, patch, have.starts, strict=True):
        one[:, y : y + have.size[0], x : x + have.size[1]] = own
    return whole
