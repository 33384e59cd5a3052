"""Whether occlusion and a projection point at the same places: Zeiler and Fergus's check of projections."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.sight.projecting.projection import Box, Projection, Rule

if TYPE_CHECKING:
    from convscope.sight.occluding.result import Occlusion, UnitMaps


@dataclass(frozen=True)
class Correlation:
    """Between the projection's energy in each window and the drop of a unit's activity under it.

    Attributes:
        linear: Pearson's; None where either doesn't vary.
        rank: Spearman's, equal values with their mean rank; None where either doesn't vary.
    """

    linear: float | None
    rank: float | None


@dataclass(frozen=True)
class Agreement:
    """How far a projection's energy lies where hiding the image lowers the unit's activity.

    Attributes:
        layer, unit: whose.
        rule: of the projection.
        num_windows: places of the window.
        total, maximum, place: with the drop of the map's sum, of its maximum, and of the activation at the
            projected position; the last is what the projection is about, and None if it was made for
            another position than that of the clean maximum.
        energy: Σ x² of the projection in each window, as a share of all of it.
    """

    layer: str
    unit: int
    rule: Rule
    num_windows: int
    total: Correlation
    maximum: Correlation
    place: Correlation | None
    energy: Float[Tensor, "rows columns"]


def agreement(found: "Occlusion", projection: Projection) -> Agreement:
    """Return how a projection agrees with the occlusion of its unit.

    Raises:
        ConvscopeError: the unit isn't among those that were occluded, or the image has another size.
    """
    maps = _maps_of(found, projection)
    size = tuple(projection.image.shape[:2])
    if size != found.image_size:
        raise ConvscopeError(
            f"a projection of {size[0]} × {size[1]} pixels",
            f"one of the occluded image's {found.image_size[0]} × {found.image_size[1]}",
            "project the same image",
        )
    energy = energies(projection.image, found.boxes).reshape(found.rows, found.columns)
    is_same_place = projection.position == maps.position
    return Agreement(
        projection.address,
        projection.unit,
        projection.rule,
        len(found.boxes),
        correlation(energy, maps.clean_total - maps.total),
        correlation(energy, maps.clean_maximum - maps.maximum),
        correlation(energy, maps.clean_maximum - maps.place) if is_same_place else None,
        energy,
    )


def energies(image: Float[Tensor, "h w c"], boxes: tuple[Box, ...]) -> Float[Tensor, " n"]:
    """Return the share of a picture's energy, Σ x² over pixels and channels, in each box; 0 if it is empty.

    Example:
        >>> energies(torch.tensor([[[1.0], [2.0]]]), (Box(0, 0, 1, 1), Box(0, 0, 1, 2))).tolist()
        [0.2, 1.0]
    """
    square = image.double().square().sum(2)
    sums = torch.stack([square[box.top : box.bottom, box.left : box.right].sum() for box in boxes])
    whole = square.sum()
    return sums / whole if bool(whole > 0) else sums


def correlation(one: Tensor, other: Tensor) -> Correlation:
    """Return both correlations of two maps.

    Example:
        >>> found = correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 8.0, 27.0]))
        >>> round(found.linear, 3), round(found.rank, 3)
        (0.966, 1.0)
    """
    first, second = one.flatten().double(), other.flatten().double()
    return Correlation(_pearson(first, second), _pearson(_ranks(first), _ranks(second)))


def _pearson(one: Tensor, other: Tensor) -> float | None:
    first, second = one - one.mean(), other - other.mean()
    norm = first.norm() * second.norm()
    # What is left of a constant map is rounding.
    varies = all(float((m.max() - m.min()).abs()) > 1e-12 * float(m.abs().max()) for m in (one, other))
    return float((first @ second / norm).clamp(-1, 1)) if varies and bool(norm > 0) else None


def _ranks(values: Tensor) -> Tensor:
    """Mean ranks from 1: those below, and half of the equal ones."""
    below = (values[None] < values[:, None]).sum(1).double()
    equal = (values[None] == values[:, None]).sum(1).double()
    return below + (equal + 1) / 2


def _maps_of(found: "Occlusion", projection: Projection) -> "UnitMaps":
    for maps in found.units:
        if (maps.layer, maps.unit) == (projection.address, projection.unit):
            return maps
    known = ", ".join(f"unit {maps.unit} of {maps.layer}" for maps in found.units) or "none"
    raise ConvscopeError(
        f"a projection of unit {projection.unit} of {projection.address}",
        f"a unit that was occluded: {known}",
        f"pass units=[({projection.address!r}, {projection.unit})]",
    )
