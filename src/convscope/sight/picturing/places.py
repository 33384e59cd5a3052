"""What the second look has to look up: who won where, in blocks of images with fixed boundaries.

A block is the unit of work: of what is divided among processes, of what is kept when a run is killed, and of
what is batched. Its boundaries depend on the winners alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as attribute

from convscope.sight.collecting.tally import Tally
from convscope.sight.projecting.crops import Cropping, cropping
from convscope.sight.projecting.projection import Box
from convscope.sight.projecting.projector import box_of
from convscope.sight.units.maps import UnitMaps
from convscope.tape.receptive_field import ReceptiveField

BLOCK_IMAGES, BLOCK_PLACES = 64, 1024
# Windows cost a forward pass of their own; whole images share one, and one backward pass each hardly more.
LARGEST_WINDOW = 0.4


@dataclass(frozen=True)
class Place:
    """A unit's win: in which image, at which rank, with which activation, at which (y, x) of its map."""

    image: int
    unit: int
    rank: int
    value: float
    position: tuple[int, int]


@dataclass(frozen=True)
class LayerLook:
    """What is looked up for one layer.

    Attributes:
        number: the layer's place in the gallery.
        maps: its units.
        field: their receptive field.
        windows: how windows are cut for them; None where whole images are used.
        places: its wins by image.
        judged: units of which scores are measured.
        image_size: (height, width) of the images.
        not_projected: why there are no projections of them; None if there are.
        boxes: what positions see, where that differs by position and is known.
    """

    number: int
    maps: UnitMaps
    field: ReceptiveField | None
    windows: Cropping | None
    places: dict[int, list[Place]]
    judged: frozenset[int]
    image_size: tuple[int, int]
    not_projected: str | None = None
    boxes: Mapping[tuple[int, int], Box] = attribute(default_factory=dict)

    def box(self, position: tuple[int, int]) -> Box:
        """Return the pixels that a position sees, clamped to the image; all of them if nobody knows."""
        return self.boxes.get(position) or box_of(self.field, position, self.image_size)

    @property
    def extent(self) -> int:
        """The longest side in pixels that a picture of what a unit sees can have."""
        if self.boxes:
            return max(max(box.height, box.width) for box in self.boxes.values())
        return extent_of(self.field, self.image_size)


def extent_of(field: ReceptiveField | None, image_size: tuple[int, int]) -> int:
    """Return the longest side in pixels of what a position sees."""
    return max(image_size) if field is None else max(map(min, field.size, image_size))


# Seven parameters: they are the fields of what it returns, or what these are made of.
def layer_look(
    number: int,
    maps: UnitMaps,
    field: ReceptiveField | None,
    tally: Tally,
    image_size: tuple[int, int],
    num_judged: int | None,
    not_projected: str | None = None,
) -> LayerLook:
    """Return what is to be looked up for a layer.

    Args:
        number: the layer's place in the gallery.
        maps: its units.
        field: their receptive field along the signal's way, or None.
        tally: what the scan found.
        image_size: (height, width) of the images.
        num_judged: of how many units scores are measured; None for all.
        not_projected: why there are no projections; None if there are.
    """
    places = places_of(tally)
    firing = [place.unit for place in places if place.rank == 0]
    count = len(firing) if num_judged is None else min(num_judged, len(firing))
    by_image: dict[int, list[Place]] = {}
    for place in places:
        by_image.setdefault(place.image, []).append(place)
    cut = cropping(field, image_size)
    if cut is not None and cut.size[0] * cut.size[1] > LARGEST_WINDOW * image_size[0] * image_size[1]:
        cut = None
    judged = frozenset(firing[index * len(firing) // count] for index in range(count))
    return LayerLook(number, maps, field, cut, by_image, judged, image_size, not_projected)


def places_of(tally: Tally) -> list[Place]:
    """Return all wins of a layer, by unit and rank; a unit wins only where it is positive."""
    ranked = zip(tally.values.tolist(), tally.images.tolist(), tally.places.tolist(), strict=True)
    return [
        Place(image, unit, rank, value, divmod(place, tally.width))
        for unit, wins in enumerate(ranked)
        for rank, (value, image, place) in enumerate(zip(*wins, strict=True))
        if value > 0
    ]


def blocks_of(looks: Iterable[LayerLook]) -> list[tuple[int, ...]]:
    """Return the winning images, ascending, cut into blocks of so many images or wins at most.

    An image with more wins than a block may have is a block of its own.
    """
    counts: dict[int, int] = {}
    for look in looks:
        for image, places in look.places.items():
            counts[image] = counts.get(image, 0) + len(places)
    blocks: list[tuple[int, ...]] = []
    block: list[int] = []
    num_places = 0
    for image in sorted(counts):
        if block and (len(block) == BLOCK_IMAGES or num_places + counts[image] > BLOCK_PLACES):
            blocks.append(tuple(block))
            block, num_places = [], 0
        block.append(image)
        num_places += counts[image]
    return [*blocks, tuple(block)] if block else blocks
