"""From views to files: a block's tiles as they are kept, a layer's sprites and what it is in the gallery."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from convscope.sight.collecting.tally import Tally
from convscope.sight.images import ImageSource
from convscope.sight.picturing.album import Example, Layer, Sprite, Unit
from convscope.sight.picturing.kept import BlockFiles, Pictures
from convscope.sight.picturing.places import LayerLook, Place, places_of
from convscope.sight.picturing.sprites import Layout
from convscope.sight.picturing.tiles import SIGNED_DISPLAY, as_rgb, as_signed_tile, as_tile
from convscope.sight.picturing.winners import View
from convscope.sight.projecting.projection import Census, Scores


@dataclass(frozen=True)
class Drawing:
    """How one layer is drawn.

    Attributes:
        look: what is looked up for it.
        tally: what the scan found.
        layout: of its sprites.
        census: how the operators below are passed; None without projections.
    """

    look: LayerLook
    tally: Tally
    layout: Layout
    census: Census | None

    @classmethod
    def of(cls, look: LayerLook, tally: Tally, census: Census | None) -> "Drawing":
        """Return how a layer is drawn."""
        layout = Layout.of(look.maps.num_units, tally.values.shape[1], look.extent)
        return cls(look, tally, layout, census)

    def put(self, view: View, images: ImageSource, pictures: Pictures) -> None:
        """Add a view to the pictures of a block."""
        pictures.units.append(view.place.unit)
        pictures.ranks.append(view.place.rank)
        pictures.patches.append(as_tile(as_rgb(images.shown(view.patch)), self.layout.tile))
        if view.projection is not None:
            pictures.projections.append(as_signed_tile(view.projection, self.layout.tile))
        pictures.num_whole += view.is_whole

    def layer(self, files: BlockFiles, images: ImageSource) -> Layer:
        """Return the layer as it stands in the gallery."""
        look, layout = self.look, self.layout
        scores: dict[int, Scores] = {}
        num_whole = 0
        for pictures in files.pictures(look.number):
            scores |= pictures.scores
            num_whole += pictures.num_whole
        return Layer(
            name=look.maps.name,
            address=look.maps.address,
            unit_address=look.maps.unit_address,
            map_size=look.maps.map_size,
            receptive_field=look.field,
            units=tuple(self._units(scores, images)),
            sprite=Sprite(
                tuple(self._files("patches")),
                () if look.not_projected else tuple(self._files("projections")),
                layout.tile, layout.side, layout.across, layout.per_file,
                images.display, SIGNED_DISPLAY,
            ),
            projected=look.not_projected,
            census=self.census,
            window=look.windows.size if look.windows and not look.not_projected else None,
            num_whole=num_whole,
            selectivity=_median(each.selectivity for each in scores.values()),
            image_dependence=_median(each.image_dependence for each in scores.values()),
            randomisation=_median(each.randomisation for each in scores.values()),
            masking_drop=_median(each.masking_drop for each in scores.values()),
        )  # fmt: skip

    def save(self, files: BlockFiles, folder: Path) -> None:
        """Write the layer's sprites, one after another."""
        for kind in ("patches", "projections")[: 1 if self.look.not_projected else 2]:
            for number, name in enumerate(self._files(kind)):
                tiles = self._tiles(files, kind, self.layout.units_in(number))
                self.layout.save(number, tiles, folder / name)

    def _tiles(
        self, files: BlockFiles, kind: str, units: range
    ) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
        for pictures in files.pictures(self.look.number):
            tiles = getattr(pictures, kind)
            for unit, rank, tile in zip(pictures.units, pictures.ranks, tiles, strict=True):
                if unit in units:
                    yield unit, rank, tile

    def _files(self, kind: str) -> Iterator[str]:
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.look.maps.name)[:80]
        for number in range(self.layout.num_files):
            part = f"-{number}" if self.layout.num_files > 1 else ""
            yield f"{self.look.number:03d}-{name}-{kind}{part}.webp"

    def _units(self, scores: dict[int, Scores], images: ImageSource) -> Iterator[Unit]:
        tally, statistics = self.tally, self.tally.statistics
        wins: dict[int, list[Place]] = {}
        for place in places_of(tally):
            wins.setdefault(place.unit, []).append(place)
        dead, near_dead, active = (
            tally.dead.tolist(),
            tally.near_dead().tolist(),
            tally.active_images.tolist(),
        )
        for index in range(self.look.maps.num_units):
            yield Unit(
                index=index,
                dead=dead[index],
                near_dead=near_dead[index],
                always_on=bool(tally.always_on[index]) if statistics else None,
                maximum=float(tally.maximum[index]),
                minimum=float(statistics.minimum[index]) if statistics else None,
                mean=float(tally.mean[index]) if statistics else None,
                active_images=active[index],
                active_positions=float(tally.active_positions[index]) if statistics else None,
                scores=scores.get(index),
                examples=tuple(self._example(place, images) for place in wins.get(index, ())),
            )

    def _example(self, place: Place, images: ImageSource) -> Example:
        name, box = images.name(place.image), self.look.box(place.position)
        return Example(place.image, name, place.value, place.position, box)


def _median(scores: Iterable[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return median(known) if known else None
