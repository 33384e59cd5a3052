"""When features stop changing: how alike each epoch's are to the last one's.

Two measures. *Projections*: the cosine between a unit's projections at two epochs, laid over one another at
the unit's own position, so that it is about what the unit shows, wherever in whichever image; a jump to
another image shows in it. *Responses*: the correlation, over some fixed images, of the unit's largest
activation in each; it knows no jumps, and covers all units.
"""

from collections.abc import Sequence
from statistics import median

from jaxtyping import Float
from torch import Tensor

from convscope.sight.evolving.moment import Appearance
from convscope.tape.receptive_field import ReceptiveField


def aligned_cosine(
    field: ReceptiveField | None,
    one: tuple[Appearance, Tensor],
    other: tuple[Appearance, Tensor],
) -> float | None:
    """Return the cosine between two projections in the frame of the receptive field; zero outside the image.

    Args:
        field: of the layer; None: the frame is the image.
        one: where a projection was taken, and the projection (c, h, w) in its box.
        other: the same of another.

    Returns:
        From −1 to 1; None if either is zero everywhere.
    """
    (top, left), (other_top, other_left) = _corner(field, one[0]), _corner(field, other[0])
    first, second = one[1].double(), other[1].double()
    rows = max(top, other_top), min(top + first.shape[1], other_top + second.shape[1])
    columns = max(left, other_left), min(left + first.shape[2], other_left + second.shape[2])
    if not bool(first.any()) or not bool(second.any()):
        return None
    first, second = first / first.abs().max(), second / second.abs().max()
    # The root of the product of squares, not of each: a picture's cosine with itself is 1 to the last bit.
    norm = float((first.square().sum() * second.square().sum()).sqrt())
    if rows[0] >= rows[1] or columns[0] >= columns[1]:
        return 0.0
    first = first[:, rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left]
    second = second[:, rows[0] - other_top : rows[1] - other_top]
    second = second[:, :, columns[0] - other_left : columns[1] - other_left]
    return max(-1.0, min(1.0, float((first * second).sum()) / norm))


def correlations(
    one: Float[Tensor, "images units"], other: Float[Tensor, "images units"]
) -> tuple[float, ...]:
    """Return each unit's correlation over the images; units that are constant in either are left out.

    Example:
        >>> import torch
        >>> one, other = torch.tensor([[0.0, 1], [1, 1], [2, 1]]), torch.tensor([[5.0, 0], [4, 1], [3, 2]])
        >>> [round(value, 9) for value in correlations(one, other)]
        [-1.0]
    """
    first, second = (each.double() - each.double().mean(0) for each in (one, other))
    norms = first.norm(dim=0) * second.norm(dim=0)
    # By the values themselves: a constant's differences from its mean may be rounding.
    known = (one.amax(0) > one.amin(0)) & (other.amax(0) > other.amin(0)) & (norms > 0)
    return tuple(((first * second).sum(0)[known] / norms[known]).clamp(-1, 1).tolist())


def middle(values: Sequence[float | None]) -> float | None:
    """Return the median of those that are known; None if none is."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def converged_at(epochs: Sequence[int], alike: Sequence[float | None], threshold: float) -> int | None:
    """Return the first epoch from which on a layer stays as like its last state as the threshold asks.

    The last epoch is like itself: a layer that is so only there hasn't been seen to converge, None.

    Example:
        >>> converged_at((1, 2, 5, 10), (0.1, 0.95, 0.92, 1.0), 0.9)
        2
        >>> converged_at((1, 2, 5, 10), (0.95, 0.95, 0.3, 1.0), 0.9) is None
        True
    """
    first: int | None = None
    for epoch, value in reversed(list(zip(epochs, alike, strict=True))[:-1]):
        if value is None or value < threshold:
            break
        first = epoch
    return first


def _corner(field: ReceptiveField | None, each: Appearance) -> tuple[int, int]:
    """Where a box begins in the receptive field of its position."""
    assert each.box is not None
    assert each.position is not None
    if field is None:
        return each.box.top, each.box.left
    starts = [o + place * s for o, place, s in zip(field.offset, each.position, field.stride)]
    return each.box.top - starts[0], each.box.left - starts[1]
