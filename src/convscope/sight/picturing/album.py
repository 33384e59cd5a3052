"""What a gallery is: for every unit of every layer, its strongest images and its statistics."""

from dataclasses import dataclass

from convscope.core.finding import Finding
from convscope.core.result import Result
from convscope.data import Damage
from convscope.sight.picturing.origin import Origin
from convscope.sight.projecting.projection import Box, Census, Rule, Scores
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
        near_dead: it is positive somewhere, but in less than 1 % of the images.
        always_on: it is positive everywhere in all images; None if statistics weren't collected.
        maximum: over all images and positions.
        minimum, mean: likewise; None if statistics weren't collected.
        active_images: share of the images in which it is positive somewhere.
        active_positions: share of all positions in all images at which it is positive; None as above.
        scores: of the projection of its strongest example; None if it wasn't judged.
        examples: its strongest images, strongest first, each image once, ties by image index; those in
            which it isn't positive anywhere are left out.
    """

    index: int
    dead: bool
    near_dead: bool
    always_on: bool | None
    maximum: float
    minimum: float | None
    mean: float | None
    active_images: float
    active_positions: float | None
    scores: Scores | None
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Sprite:
    """How a layer's pictures lie in its image files.

    Unit ``u`` is number ``v = u % per_file`` of file ``u // per_file``. Its block has its upper left corner
    at ``((v % across)·side·tile, (v // across)·side·tile)`` pixels; its picture of rank ``k`` lies
    ``((k % side)·tile, (k // side)·tile)`` further.

    Attributes:
        patches: file names in the gallery's folder.
        projections: likewise; none for a layer without projections.
        tile: side of a picture in pixels.
        side: pictures in a row of a unit's block.
        across: units in a row of a file.
        per_file: units in a file; the last file may have fewer, and is then as many rows lower.
        patch_display: how a patch's numbers became colours.
        projection_display: likewise for projections.
    """

    patches: tuple[str, ...]
    projections: tuple[str, ...]
    tile: int
    side: int
    across: int
    per_file: int
    patch_display: str
    projection_display: str


@dataclass(frozen=True)
class Layer:
    """All units of one layer.

    Attributes:
        name: the convolution's module path, or its operator's address where the module has several.
        address: the convolution's operator address, or that of the module named.
        unit_address: the address whose output holds the units.
        map_size: (height, width) of the units' maps.
        receptive_field: of a position in them; None where it differs by position: each example's box says
            then what is seen, the whole image where that isn't known.
        units: in order of their channels.
        sprite: where their pictures are.
        projected: None, or the reason why its units have no projections.
        census: how the operators below were passed; None without projections.
        window: (height, width) of the windows in which units were projected; None if all whole images were.
        num_whole: of its projections, how many were made in whole images: all if there are no windows, and
            those whose windows gave other activations.
        selectivity, image_dependence, randomisation, masking_drop: medians over the units judged, see
            :class:`~convscope.sight.projecting.projection.Scores`; None if there are none.
    """

    name: str
    address: str
    unit_address: str
    map_size: tuple[int, int]
    receptive_field: ReceptiveField | None
    units: tuple[Unit, ...]
    sprite: Sprite
    projected: str | None
    census: Census | None
    window: tuple[int, int] | None
    num_whole: int
    selectivity: float | None
    image_dependence: float | None
    randomisation: float | None
    masking_drop: float | None

    @property
    def dead(self) -> tuple[int, ...]:
        """Channels of the dead units."""
        return tuple(unit.index for unit in self.units if unit.dead)


@dataclass(frozen=True)
class Gallery(Result):
    """The strongest images of every unit and their projections, written to a folder.

    Attributes:
        rule: the projections' rule.
        rule_reason: why it was chosen; "given" if the caller chose it.
        top: how many images a unit has at most.
        num_images: how many were looked at.
        damaged: those that couldn't be read and were skipped, each with the reason.
        image_size: (height, width) of the images in pixels.
        layers: in order of execution.
        left_out: convolutions whose channels aren't maps over the image, each with the reason.
        folder: where the files are.
        images_fingerprint: of the images, see :meth:`~convscope.sight.images.ImageSource.fingerprint`.
        digest: sha256, in hex, of the files with the numbers and the pictures: a page that shows them from
            elsewhere knows by it whether they are still those that it was made for.
        index, script: names of the JSON file and of the JavaScript file that sets
            ``window.convscopeGallery`` to the same.
        numbers: name of the safetensors file with all units' values, images, places, statistics, scores and
            profiles.
        findings: dead, near-dead, always-on and tied units, projections that don't depend on the image,
            layers without projections.
        origin: the network, the weights and the data that it was made of, and when; None in galleries of
            earlier versions.
    """

    rule: Rule
    rule_reason: str
    top: int
    num_images: int
    damaged: tuple[Damage, ...]
    image_size: tuple[int, int]
    layers: tuple[Layer, ...]
    left_out: tuple[str, ...]
    folder: str
    images_fingerprint: str
    digest: str
    index: str
    script: str
    numbers: str
    findings: tuple[Finding, ...]
    origin: Origin | None = None
