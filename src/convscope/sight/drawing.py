"""One layer of a gallery while it is being drawn: its two sprites, its examples, its scores."""

import re
from pathlib import Path
from statistics import median

from convscope.core.finding import Evidence, Finding
from convscope.sight.album import Example, Layer, Sprite, Unit
from convscope.sight.images import ImageSource
from convscope.sight.projection import Census, Rule, Scores
from convscope.sight.remarks import remarks_on
from convscope.sight.scan import Tally
from convscope.sight.tiles import SpriteSheet, as_rgb, signed_display
from convscope.sight.units import UnitMaps
from convscope.sight.winners import LayerLook, Place, View
from convscope.tape.receptive_field import ReceptiveField

NUM_JUDGED = 4
PROJECTION_DISPLAY = "0.5 + x / (2 max|x|), each with its own maximum"


class Drawing:
    """A layer's pictures and examples, filled in view by view.

    Args:
        number: the layer's place in the gallery.
        maps: its units.
        field: their receptive field.
        tally: what the scan found.
        image_size: (height, width) of the images.

    Attributes:
        look: what is to be looked up for it.
    """

    def __init__(
        self,
        number: int,
        maps: UnitMaps,
        field: ReceptiveField | None,
        tally: Tally,
        image_size: tuple[int, int],
    ) -> None:
        self.look = LayerLook(maps, field, *_wins(tally))
        self._tally = tally
        self._views: dict[tuple[int, int], Example] = {}
        self._scores: list[Scores] = []
        top = tally.values.shape[1]
        extent = max(image_size) if field is None else max(map(min, field.size, image_size))
        self._sheets = [SpriteSheet(maps.num_units, top, extent) for _ in range(2)]
        stem = f"{number:02d}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', maps.name)[:80]}"
        self._files = (f"{stem}-patches.png", f"{stem}-projections.png")

    def put(self, view: View, images: ImageSource) -> None:
        """Draw a view and note its example."""
        place = view.place
        self._sheets[0].put(place.unit, place.rank, as_rgb(images.shown(view.patch)))
        self._sheets[1].put(place.unit, place.rank, as_rgb(signed_display(view.projection)))
        self._views[place.unit, place.rank] = Example(
            place.image, images.name(place.image), place.value, place.position, view.box
        )
        if view.scores is not None:
            self._scores.append(view.scores)

    def save(self, folder: Path) -> None:
        """Write the two sprites."""
        for sheet, name in zip(self._sheets, self._files):
            sheet.save(folder / name)

    def layer(self, census: Census, patch_display: str) -> Layer:
        """Return the layer as it stands in the gallery."""
        maps, sheet = self.look.maps, self._sheets[0]
        return Layer(
            name=maps.name,
            address=maps.address,
            unit_address=maps.unit_address,
            map_size=maps.map_size,
            receptive_field=self.look.field,
            units=tuple(self._unit(index) for index in range(maps.num_units)),
            sprite=Sprite(
                *self._files, sheet.tile, sheet.side, sheet.across, patch_display, PROJECTION_DISPLAY
            ),
            census=census,
            selectivity=_median([scores.selectivity for scores in self._scores]),
            image_dependence=_median([scores.image_dependence for scores in self._scores]),
        )

    def _unit(self, index: int) -> Unit:
        tally = self._tally
        views = sorted(rank for unit, rank in self._views if unit == index)
        return Unit(
            index=index,
            dead=bool(tally.dead[index]),
            maximum=float(tally.maximum[index]),
            minimum=float(tally.minimum[index]),
            mean=float(tally.mean[index]),
            active_images=float(tally.active[index]) / max(tally.num_images, 1),
            examples=tuple(self._views[index, rank] for rank in views),
        )


def findings_on(layer: Layer, rule: Rule, num_images: int) -> tuple[Finding, ...]:
    """Return what should be known about a layer of a gallery."""
    scores = Scores(selectivity=layer.selectivity, image_dependence=layer.image_dependence)
    found = remarks_on(layer.address, rule, layer.census, scores)
    if not layer.dead:
        return found
    share = len(layer.dead) / len(layer.units)
    dead = Finding(
        "dead-units", "warning", layer.address,
        (
            Evidence("dead units", len(layer.dead), "units", f"activation ≤ 0 in {num_images} images"),
            Evidence("share of the layer", share, "1"),
        ),
        f"{len(layer.dead)} of {len(layer.units)} units are positive in none of {num_images} images",
        "look at more images; if they stay dead, lower the learning rate or initialise again, or prune them",
        "Zeiler and Fergus 2014 (arXiv 1311.2901), section 4.1",
    )  # fmt: skip
    return (dead, *found)


def _wins(tally: Tally) -> tuple[dict[int, list[Place]], frozenset[int]]:
    """All wins of a layer by image, and the units that its scores are taken of: some that fire."""
    places = tuple(
        Place(image, unit, rank, value, divmod(place, tally.width))
        for unit, ranked in enumerate(
            zip(tally.values.tolist(), tally.images.tolist(), tally.places.tolist(), strict=True)
        )
        for rank, (value, image, place) in enumerate(zip(*ranked, strict=True))
        if value > 0
    )
    firing = [place.unit for place in places if place.rank == 0]
    step = max(1, len(firing) // NUM_JUDGED)
    by_image: dict[int, list[Place]] = {}
    for place in places:
        by_image.setdefault(place.image, []).append(place)
    return by_image, frozenset(firing[::step][:NUM_JUDGED])


def _median(scores: list[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return median(known) if known else None
