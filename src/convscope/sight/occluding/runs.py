"""The runs of an occlusion: the clean image, then batches of occluded ones; one run gives all readings."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.probe import Probe
from convscope.sight.occluding.patching import Patches
from convscope.sight.occluding.prefix import Prefix
from convscope.sight.occluding.result import Reuse
from convscope.sight.projecting.projection import Box
from convscope.sight.units.classes import ClassScores
from convscope.sight.units.reading import Place

NUM_JUDGED = 4
TOLERANCE = 64
"""Rounding steps of the largest value by which a run on regions may differ from a plain one."""


@dataclass
class Subject:
    """What is read in every run.

    Attributes:
        scores: the class scores, and where they are read; None if there are none.
        places: where each layer is read.
        units: the channel of each that is followed; all of them in the clean run.
    """

    scores: tuple[ClassScores, Place] | None
    places: tuple[Place, ...]
    units: list[int] = field(default_factory=list)


class Runs:
    """Runs a model on occluded images; see :meth:`occluded`.

    Args:
        probe: on the model.
        image: (1, c, h, w).
        fill: (c, 1, 1), the window's colour.
        boxes: the window's part of the image at each place.
        subject: what is read.
    """

    def __init__(
        self, probe: Probe, image: Tensor, fill: Tensor, boxes: tuple[Box, ...], subject: Subject
    ) -> None:
        self._probe, self._image, self._fill, self._boxes = probe, image, fill, boxes
        self._subject, self.num_windows = subject, len(boxes)
        self._heard: dict[int, Tensor] = {}
        self._patches: Patches | None = None
        self._prefix: Prefix | None = None
        self.reuse = Reuse(False, "", 1.0, "not asked for")

    def listen(self, prefix: Prefix | None, reason: str) -> None:
        """Install the rules of a prefix, if there is one, and what reads values in every run."""
        self._prefix, self.reuse = prefix, Reuse(False, "", 1.0, reason)
        if prefix is not None:
            self._patches = Patches(prefix)
            self._patches.install(self._probe)
        for number, place in enumerate(self._all_places()):
            place.tell(self._probe, self._reader(number, place))

    def clean(self) -> list[Tensor]:
        """Return what is read for the clean image: class scores, if there are any, and whole layers."""
        if self._patches is not None:
            with self._patches.holding(self._image):
                return self._run(self._image)
        return self._run(self._image)

    def judge(self) -> None:
        """Run some windows plainly and on regions: unless both give the same, all runs will be plain."""
        if self._patches is None:
            return
        assert self._prefix is not None
        last = len(self._boxes) - 1
        windows = sorted({last * number // (NUM_JUDGED - 1) for number in range(NUM_JUDGED)})
        images = self._images(windows)
        plain = self._run(images)
        try:
            found = self._on_regions(images, windows)
            is_same = all(_equal(one, other) for one, other in zip(plain, found, strict=True))
            failure = "" if is_same else "it would give other numbers than a plain run"
        except Exception as error:  # networks may look at their input's size
            self._probe.attribution.abandon()
            failure = f"the network doesn't run on parts of the image ({type(error).__name__})"
        if failure:
            self._patches, self.reuse = None, Reuse(False, "", 1.0, failure)
        else:
            address = str(self._prefix.inside[-1][0].address)
            reason = f"{len(windows)} windows gave the same without it"
            self.reuse = Reuse(True, address, self._prefix.share, reason)

    def occluded(self, windows: list[int]) -> list[Tensor]:
        """Return what is read for some windows: class scores, if there are any, and units' maps."""
        images = self._images(windows)
        return self._run(images) if self._patches is None else self._on_regions(images, windows)

    def _images(self, windows: list[int]) -> Tensor:
        images = self._image.repeat(len(windows), 1, 1, 1)
        for image, window in zip(images, windows):
            box = self._boxes[window]
            image[:, box.top : box.bottom, box.left : box.right] = self._fill
        return images

    def _on_regions(self, images: Tensor, windows: list[int]) -> list[Tensor]:
        assert self._patches is not None
        parts = self._patches.parts_of(images, windows)
        with self._patches.patching(windows):
            return self._run(parts)

    def _run(self, images: Tensor) -> list[Tensor]:
        self._heard = {}
        self._probe.model(images.clone())
        places = self._all_places()
        for number, place in enumerate(places):
            if number not in self._heard:
                raise ConvscopeError(
                    f"address {place.address!r} isn't passed when the network runs on an occluded image",
                    "a network that takes the same way for every image",
                    "choose another layer",
                )
        return [self._heard[number] for number in range(len(places))]

    def _all_places(self) -> list[Place]:
        scores = self._subject.scores
        return [*([scores[1]] if scores is not None else []), *self._subject.places]

    def _reader(self, number: int, place: Place) -> Callable[[Tensor], object]:
        first = number - (self._subject.scores is not None)

        def reader(tensor: Tensor) -> None:
            if first >= 0 and self._subject.units:
                self._heard[number] = self._unit(place, tensor, self._subject.units[first])
            else:
                self._heard[number] = tensor.clone()

        return reader

    def _unit(self, place: Place, tensor: Tensor, unit: int) -> Tensor:
        """Its maps, (n, h, w), or its activations, (n,)."""
        if self._patches is None:
            return tensor[:, unit].clone()
        return self._patches.whole(place.value, tensor, unit)[:, 0].clone()


def _equal(plain: Tensor, found: Tensor) -> bool:
    if plain.shape != found.shape:
        return False
    limit = TOLERANCE * torch.finfo(plain.dtype).eps * float(plain.abs().max())
    return bool(((plain - found).abs() <= limit).all())
