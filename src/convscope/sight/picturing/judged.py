"""Scores of the units of a block: how far their strongest example's projection can be trusted.

As for the projections themselves, units with a small receptive field are judged in batches of windows, the
others in copies of their image, whose runs serve all of its units and layers.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import torch
from torch import Tensor

from convscope.sight.judging.scores import Spot, judge_all
from convscope.sight.judging.trial import MANY_PICTURES, Run, Trial, unless_same
from convscope.sight.picturing.places import LayerLook, Place
from convscope.sight.projecting.crops import Cropping, Window
from convscope.sight.projecting.holding import Frozen
from convscope.sight.projecting.projection import Box, Scores
from convscope.sight.projecting.projector import Projector, at_position

BATCH, MOST_COPIES = 16, 4

Judgement = tuple[LayerLook, int, Scores]


def judged(
    projector: Projector, layers: Sequence[LayerLook], images: dict[int, Tensor]
) -> Iterator[Judgement]:
    """Yield the scores of those units of some layers whose strongest image is in a block, in no order.

    Args:
        projector: runs the model.
        layers: whose units are judged.
        images: the block's, (c, h, w) each, by their index in the data set.
    """
    block = _Judged(projector, images)
    whole: list[LayerLook] = []
    for layer in layers:
        if layer.not_projected is None and layer.windows is not None:
            left = yield from block.in_windows(layer)
            yield from block.in_copies([layer], left)
        elif layer.not_projected is None:
            whole.append(layer)
    for index in images:
        yield from block.in_copies(whole, [p for layer in whole for p in _judged_places(layer, [index])])


class _Judged:
    """Some images, straight, turned by 180°, and behind random upper layers."""

    def __init__(self, projector: Projector, images: dict[int, Tensor]) -> None:
        self._projector, self._images = projector, images
        self._rows = {index: row for row, index in enumerate(images)}

    def in_windows(self, layer: LayerLook) -> Generator[Judgement, None, list[Place]]:
        """Yield scores measured in windows; return the places whose windows the network doesn't take."""
        cut, left = layer.windows, list[Place]()
        assert cut is not None
        wins = [(cut.window(place.position), place) for place in _judged_places(layer, self._images)]
        wins.sort(key=lambda win: (win[0].position, win[1].unit))
        for start in range(0, len(wins), BATCH):
            windows, places = map(list, zip(*wins[start : start + BATCH], strict=True))
            try:
                trial = self._trial_in_windows(layer, cut, windows, places)
                spots = [_spot(layer, place, window) for place, window in zip(places, windows, strict=True)]
                found = self._scores(trial, spots)
            except Exception:  # as in the look at the pictures
                left += places
                continue
            yield from ((layer, place.unit, each) for place, each in zip(places, found, strict=True))
        return left

    def in_copies(self, layers: Sequence[LayerLook], places: Sequence[Place]) -> Iterator[Judgement]:
        """Yield scores measured in the whole images of places of some layers."""
        for index in sorted({place.image for place in places}):
            own = [(layer, place) for layer in layers for place in _judged_places(layer, [index])]
            copies = min(len(own), MOST_COPIES)
            trials = self._trials_in_copies([layer for layer, _ in own], index, copies)
            for layer in layers:
                wins = sorted(
                    (place for each, place in own if each is layer), key=lambda p: (p.position, p.unit)
                )
                for start in range(0, len(wins), copies):
                    part = wins[start : start + copies]
                    spots = [_spot(layer, place, Window(0, 0, place.position)) for place in part]
                    found = self._scores(trials[layer.maps.unit_address], spots)
                    yield from ((layer, place.unit, each) for place, each in zip(part, found, strict=True))

    def _scores(self, trial: Trial, spots: list[Spot]) -> list[Scores]:
        leaves, maps = trial.straight
        seed = torch.zeros_like(maps)
        for row, spot in enumerate(spots):
            at_position(seed, spot.position)[row, spot.unit] = 1
        pictures = self._projector.backward(leaves, maps, seed, keep=True)[: len(spots)]
        return judge_all(self._projector, trial, spots, pictures, MANY_PICTURES)

    def _trial_in_windows(
        self, layer: LayerLook, cut: Cropping, windows: list[Window], places: list[Place]
    ) -> Trial:
        address, projector = layer.maps.unit_address, self._projector
        rows = [self._rows[place.image] for place in places]
        images = self._stacked[rows]

        def run(whole: Tensor, frozen: Callable[[], Frozen]) -> Run:
            with self._holding(frozen, rows):
                return Run(*projector.forward(address, cut.crops(whole, windows)))

        straight = run(images, lambda: self._straight)
        turned = run(images.flip(2, 3), lambda: self._turned)
        with projector.standing_in(projector.upper_weights):
            random = run(images, lambda: self._random)
        return Trial(
            address, straight, (turned,), unless_same(random, straight), projector.upper_weights,
            images.mean((2, 3)),
            lambda chosen: self._holding(lambda: self._straight, [rows[row] for row in chosen]),
        )  # fmt: skip

    def _trials_in_copies(self, layers: Sequence[LayerLook], index: int, copies: int) -> dict[str, Trial]:
        addresses = list(dict.fromkeys(layer.maps.unit_address for layer in layers))
        images = self._images[index][None].expand(copies, -1, -1, -1)
        straight, turned = (self._runs(addresses, each) for each in (images, images.flip(2, 3)))
        weights = self._projector.upper_weights
        with self._projector.standing_in(weights):
            random = self._runs(addresses, images)
        grey = images.mean((2, 3))
        return {
            address: Trial(
                address, straight[address], (turned[address],),
                unless_same(random[address], straight[address]), weights, grey,
                self._held_in_copies(index),
            )
            for address in addresses
        }  # fmt: skip

    def _runs(self, addresses: list[str], images: Tensor) -> dict[str, Run]:
        leaves, maps = self._projector.forward_to(addresses, images)
        return {address: Run(leaves, maps[address]) for address in addresses}

    def _held_in_copies(self, index: int) -> Callable[[list[int]], AbstractContextManager[None]]:
        row = self._rows[index]
        return lambda chosen: self._holding(lambda: self._straight, [row] * len(chosen))

    def _holding(self, frozen: Callable[[], Frozen], rows: list[int]) -> AbstractContextManager[None]:
        if not self._projector.holds:
            return nullcontext()
        return self._projector.holding(frozen().rows(rows))

    @cached_property
    def _stacked(self) -> Tensor:
        return torch.stack(list(self._images.values()))

    @cached_property
    def _straight(self) -> Frozen:
        return self._projector.recorded(self._stacked)

    @cached_property
    def _turned(self) -> Frozen:
        return self._projector.recorded(self._stacked.flip(2, 3))

    @cached_property
    def _random(self) -> Frozen:
        return self._projector.recorded(self._stacked)  # first asked for while random weights stand in


def _judged_places(layer: LayerLook, indices: Sequence[int] | dict[int, Tensor]) -> list[Place]:
    places = (place for index in indices for place in layer.places.get(index, ()))
    return [place for place in places if place.rank == 0 and place.unit in layer.judged]


def _spot(layer: LayerLook, place: Place, window: Window) -> Spot:
    box = layer.box(place.position)
    moved = Box(
        box.top - window.top, box.left - window.left, box.bottom - window.top, box.right - window.left
    )
    return Spot(layer.maps.unit_address, place.unit, window.position, moved)
