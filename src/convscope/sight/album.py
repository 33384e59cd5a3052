"""What a gallery is: for every unit of every layer, its strongest images and its statistics."""

from dataclasses import dataclass

from convscope.core.finding import Finding
from convscope.core.result import Result
from convscope.sight.projection import Box, Census, Rule
from convscope.tape.receptive_field import ReceptiveField


@dataclass(frozen=True)
class Example:
    """One of a unit's strongest images.

    Attributes:
        image: its index in the data set.
        name: its file name, or an empty text.
        value: the unit's largest activation in it.
        position: (y, x) of that activation in the unit's map.
        box: the pixels which that position sees, clamped to the image.
    """

    image: int
    name: str
    value: float
    position: tuple[int, int]
    box: Box


@dataclass(frozen=True)
class Unit:
    """One channel, after its normalisation and activation.

    Attributes:
        index: the channel.
        dead: its activation is positive nowhere in the data.
        maximum, minimum, mean: over all images and positions.
        active_images: share of the images in which it is positive somewhere.
        examples: its strongest images, strongest first, each image once, ties by image index; those in
            which it isn't positive anywhere are left out.
    """

    index: int
    dead: bool
    maximum: float
    minimum: float
    mean: float
    active_images: float
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Sprite:
    """How a layer's pictures lie in its two image files.

    Unit ``u``'s block has its upper left corner at ``((u % across)·side·tile, (u // across)·side·tile)``
    pixels; its picture of rank ``k`` lies ``((k % side)·tile, (k // side)·tile)`` further.

    Attributes:
        patches, projections: file names in the gallery's folder.
        tile: side of a picture in pixels.
        side: pictures in a row of a unit's block.
        across: units in a row of the sprite.
        patch_display: how a patch's numbers became colours.
        projection_display: likewise for projections.
    """

    patches: str
    projections: str
    tile: int
    side: int
    across: int
    patch_display: str
    projection_display: str


@dataclass(frozen=True)
class Layer:
    """All units of one convolution.

    Attributes:
        name: the convolution's module path, or its operator's address where the module has several.
        address: the convolution's operator address.
        unit_address: the operator address whose output holds the units.
        map_size: (height, width) of the units' maps.
        receptive_field: of a position in them; None where it has no fixed one.
        units: in order of their channels.
        sprite: where their pictures are.
        census: how the operators below were passed.
        selectivity, image_dependence: median over some of the units, see
            :class:`~convscope.sight.projection.Scores`; None if no unit fires.
    """

    name: str
    address: str
    unit_address: str
    map_size: tuple[int, int]
    receptive_field: ReceptiveField | None
    units: tuple[Unit, ...]
    sprite: Sprite
    census: Census
    selectivity: float | None
    image_dependence: float | None

    @property
    def dead(self) -> tuple[int, ...]:
        """Channels of the dead units."""
        return tuple(unit.index for unit in self.units if unit.dead)


@dataclass(frozen=True)
class Gallery(Result):
    """The strongest images of every unit and their projections, written to a folder.

    Attributes:
        rule: the projections' rule.
        top: how many images a unit has at most.
        num_images: how many were looked at.
        image_size: (height, width) of the images in pixels.
        layers: in order of execution.
        left_out: convolutions whose channels aren't maps over the image, each with the reason.
        folder: where the files are.
        index, script: names of the JSON file and of the JavaScript file that sets
            ``window.convscopeGallery`` to the same.
        findings: dead units, projections that don't depend on the image, operators without a rule.
    """

    rule: Rule
    top: int
    num_images: int
    image_size: tuple[int, int]
    layers: tuple[Layer, ...]
    left_out: tuple[str, ...]
    folder: str
    index: str
    script: str
    findings: tuple[Finding, ...]
