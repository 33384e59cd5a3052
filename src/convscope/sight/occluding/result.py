"""What occlusion finds: a map for every question, over the places of the window."""

from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from torch import Tensor

from convscope.core.result import Result
from convscope.sight.occluding.agreement import Agreement, agreement
from convscope.sight.projecting.projection import Box, Projection


@dataclass(frozen=True)
class Drop:
    """How much smaller something gets under the window.

    Attributes:
        largest: clean value less the smallest one; negative if the window only ever raises it.
        row, column: where in the map.
        box: the window's part of the image there.
        median, mean: over all places.
        share_of_clean: ``largest`` as a share of the clean value; None unless that is positive.
    """

    largest: float
    row: int
    column: int
    box: Box
    median: float
    mean: float
    share_of_clean: float | None


@dataclass(frozen=True)
class ClassMaps:
    """The network's answer for every place of the window.

    Attributes:
        output: which output is taken, and how it becomes probabilities.
        label: the class whose probability is mapped.
        is_given: whether it was asked for; else it is the clean image's most probable one.
        clean_label, clean_probability: the clean image's most probable class, and the probability of
            ``label``.
        probability: of ``label``, in float64.
        labels: the most probable class.
        num_changed: places where that isn't ``clean_label``.
        drop: of the probability.
    """

    output: str
    label: int
    is_given: bool
    clean_label: int
    clean_probability: float
    probability: Float[Tensor, "rows columns"]
    labels: Int[Tensor, "rows columns"]
    num_changed: int
    drop: Drop


@dataclass(frozen=True)
class UnitMaps:
    """A unit's activity for every place of the window, in float64.

    Attributes:
        layer: address where the unit is read.
        unit: the channel.
        is_given: whether it was named; else it is the layer's with the largest total in the clean image.
        position: (y, x) of its largest activation in the clean image; None for a layer without space.
        clean_total, clean_maximum: sum and maximum of its map in the clean image.
        total: sum of its map: the total activation of Zeiler and Fergus.
        maximum: maximum of its map, wherever that is.
        place: its activation at ``position``.
        drop: of the total.
        fires: whether its clean maximum is positive.
    """

    layer: str
    unit: int
    is_given: bool
    position: tuple[int, int] | None
    clean_total: float
    clean_maximum: float
    total: Float[Tensor, "rows columns"]
    maximum: Float[Tensor, "rows columns"]
    place: Float[Tensor, "rows columns"]
    drop: Drop
    fires: bool


@dataclass(frozen=True)
class Reuse:
    """Whether what the window doesn't change was computed once instead of for every window.

    Attributes:
        used: whether it was.
        last: address of the last operator that ran on regions; empty if none did.
        share_of_work: estimated work of a window, as a share of a plain run's; 1 without reuse.
        reason: why it was used or not.
    """

    used: bool
    last: str
    share_of_work: float
    reason: str


@dataclass(frozen=True)
class Occlusion(Result):
    """What becomes of a network's answer, and of units, while a window hides parts of an image.

    Attributes:
        image_size: (height, width) in pixels.
        window, stride: (height, width) in pixels.
        colour: of the window, a number a channel, as the network gets it.
        colour_name: ``"mean"``, ``"zero"`` or ``"given"``.
        overhang: whether windows hang over the border.
        rows, columns: places of the window.
        boxes: the window's part of the image at each place, row after row.
        classes: None for a network that has no class scores.
        units: in the order in which they were asked for.
        agreements: with projections; see :meth:`compared_with`.
        reuse: see :class:`Reuse`.
    """

    image_size: tuple[int, int]
    window: tuple[int, int]
    stride: tuple[int, int]
    colour: tuple[float, ...]
    colour_name: str
    overhang: bool
    rows: int
    columns: int
    boxes: tuple[Box, ...]
    classes: ClassMaps | None
    units: tuple[UnitMaps, ...]
    agreements: tuple[Agreement, ...]
    reuse: Reuse

    def compared_with(self, projection: Projection) -> "Occlusion":
        """Return the same with the agreement of a projection with its unit's maps.

        Zeiler and Fergus compare the two by eye (figure 7, b and c): if hiding a place lowers a unit's
        activity where the unit's projection has its energy, the projection shows what excites the unit.

        Raises:
            ConvscopeError: the unit isn't among those that were occluded, or the image has another size.
        """
        found = agreement(self, projection)
        return replace(self, agreements=(*self.agreements, found))


def drop_of(clean: float, under: Float[Tensor, "rows columns"], boxes: tuple[Box, ...]) -> Drop:
    """Return how much smaller a map's values are than the clean image's."""
    drops = clean - under
    row, column = divmod(int(drops.flatten().argmax()), under.shape[1])
    largest = float(drops[row, column])
    return Drop(
        largest,
        row,
        column,
        boxes[row * under.shape[1] + column],
        float(drops.flatten().quantile(0.5)),
        float(drops.mean()),
        largest / clean if clean > 0 else None,
    )
