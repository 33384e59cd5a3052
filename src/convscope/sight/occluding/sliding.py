"""Where a sliding window stands."""

from dataclasses import dataclass

from convscope.sight.projecting.projection import Box


@dataclass(frozen=True)
class Slide:
    """All places of a window, row after row.

    Attributes:
        rows, columns: how many there are.
        boxes: the part of each that lies inside the image.
    """

    rows: int
    columns: int
    boxes: tuple[Box, ...]


def slide(size: tuple[int, int], window: tuple[int, int], stride: tuple[int, int], overhang: bool) -> Slide:
    """Return where a window stands on an image.

    Args:
        size: (height, width) of the image.
        window: of the window, at most as large.
        stride: of its steps.
        overhang: see :class:`~convscope.sight.occluding.plan.OcclusionPlan`.

    Example:
        >>> slide((5, 4), (3, 2), (2, 2), overhang=True).boxes[0]
        Box(top=0, left=0, bottom=2, right=1)
        >>> [box.top for box in slide((6, 2), (3, 2), (2, 1), overhang=False).boxes]
        [0, 2, 3]
    """
    (tops, lefts), (height, width) = (
        [_starts(size[axis], window[axis], stride[axis], overhang) for axis in (0, 1)],
        window,
    )
    boxes = tuple(
        Box(max(top, 0), max(left, 0), min(top + height, size[0]), min(left + width, size[1]))
        for top in tops
        for left in lefts
    )
    return Slide(len(tops), len(lefts), boxes)


def _starts(size: int, window: int, stride: int, overhang: bool) -> list[int]:
    if overhang:
        return [centre - window // 2 for centre in range((size - 1) % stride // 2, size, stride)]
    starts = list(range(0, size - window + 1, stride))
    return starts if starts[-1] == size - window else [*starts, size - window]
