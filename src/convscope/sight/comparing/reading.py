"""A gallery as it is compared: its layers and their units' numbers, from the files in its folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.sight.collecting.tally import NEAR_DEAD
from convscope.sight.picturing.album import Gallery
from convscope.sight.picturing.folder import INDEX
from convscope.sight.picturing.numbers import NUMBERS

_ONE_PER_UNIT = ("maximum", "active_images", "minimum", "mean", "std", "active_positions")
_COLLECTED = _ONE_PER_UNIT[2:]
_UNREADABLE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, SafetensorError,
)  # fmt: skip


@dataclass(frozen=True)
class LayerNumbers:
    """One layer of a gallery.

    Attributes:
        name, address, unit_address, map_size: see :class:`~convscope.sight.picturing.album.Layer`.
        values, images: (u, top), see :class:`~convscope.sight.collecting.tally.Tally`.
        of_units: maximum, active_images, and with statistics minimum, mean, std, active_positions: (u,) each.
        scores: (u, 4), NaN where there is none.
        profile: (u, k) float32, see :class:`~convscope.sight.collecting.profile.Profile`.
    """

    name: str
    address: str
    unit_address: str
    map_size: tuple[int, int]
    values: Float[Tensor, "u top"]
    images: Int[Tensor, "u top"]
    of_units: dict[str, Tensor]
    scores: Float[Tensor, "u 4"]
    profile: Float[Tensor, "u k"]

    @property
    def num_units(self) -> int:
        """How many there are."""
        return len(self.values)

    @property
    def dead(self) -> Tensor:
        """Whether a unit is positive in no image."""
        return ~(self.of_units["maximum"] > 0)

    @property
    def near_dead(self) -> Tensor:
        """Whether it is positive in some, but in less than 1 %."""
        return ~self.dead & (self.of_units["active_images"] < NEAR_DEAD)

    @property
    def always_on(self) -> Tensor | None:
        """Whether it is positive everywhere; None without statistics."""
        return self.of_units["minimum"] > 0 if "minimum" in self.of_units else None


@dataclass(frozen=True)
class GalleryNumbers:
    """A gallery.

    Attributes:
        folder: where it lies.
        images_fingerprint, digest, num_images, image_size, top: see
            :class:`~convscope.sight.picturing.album.Gallery`.
        profile_images: (k,) indices of the images of the profiles.
        layers: in order of execution.
    """

    folder: str
    images_fingerprint: str
    digest: str
    num_images: int
    image_size: tuple[int, int]
    top: int
    profile_images: Int[Tensor, " k"]
    layers: tuple[LayerNumbers, ...]


def read_gallery(gallery: Gallery | str | Path) -> GalleryNumbers:
    """Return the numbers of a gallery, given as its result or its folder.

    Raises:
        ConvscopeError: there is no gallery in the folder, it is damaged or of an older version, or it isn't
            that of the result.
    """
    if not isinstance(gallery, Gallery | str | Path):
        raise ConvscopeError(
            f"a {type(gallery).__name__}", "a gallery, as its result or its folder", "pass gallery(…)"
        )
    folder = Path(gallery.folder if isinstance(gallery, Gallery) else gallery)
    try:
        text = (folder / INDEX).read_text(encoding="utf-8")
        found = _gallery(folder, json.loads(text))
    except _UNREADABLE as error:
        raise ConvscopeError(
            f"{str(folder)!r}, where no whole gallery can be read ({_said(error)})",
            f"a folder that convscope gallery wrote, with {INDEX} and {NUMBERS} in it",
            "give another folder, or make the gallery again",
        ) from error
    if isinstance(gallery, Gallery) and text != gallery.to_json():
        raise ConvscopeError(
            f"the result of a gallery whose folder {str(folder)!r} holds another one now",
            "a gallery as it was written",
            "write each gallery to a folder of its own",
        )
    return found


def _gallery(folder: Path, index: Any) -> GalleryNumbers:
    with safe_open(folder / NUMBERS, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    images = tensors["profile_images"]
    layers = tuple(_layer(number, facts, tensors) for number, facts in enumerate(index["layers"]))
    if not layers or any(layer.profile.shape[1] != len(images) for layer in layers):
        raise ValueError("the two files don't belong together")
    fingerprint, num_images, top = index["images_fingerprint"], index["num_images"], index["top"]
    height, width = index["image_size"]
    if "digest" not in index:
        raise ValueError("an earlier version made it")
    whole = all(isinstance(each, int) for each in (num_images, top, height, width))
    if not (whole and isinstance(fingerprint, str) and isinstance(index["digest"], str)):
        raise TypeError("foreign content")
    return GalleryNumbers(
        str(folder), fingerprint, index["digest"], num_images, (height, width), top, images, layers
    )


def _layer(number: int, facts: Any, tensors: dict[str, Tensor]) -> LayerNumbers:
    own = {name: tensors[f"{number}.{name}"] for name in ("values", "images", "scores", "profile")}
    of_units = {
        name: tensors[f"{number}.{name}"]
        for name in _ONE_PER_UNIT
        if name not in _COLLECTED or f"{number}.{name}" in tensors
    }
    name, address, unit_address = (facts[key] for key in ("name", "address", "unit_address"))
    height, width = facts["map_size"]
    count = len(facts["units"])
    fits = (
        all(isinstance(each, str) for each in (name, address, unit_address))
        and all(tensor.shape == (count,) for tensor in of_units.values())
        and all(len(tensor) == count for tensor in own.values())
        and own["values"].shape == own["images"].shape
        and own["scores"].shape == (count, 4)
        and own["profile"].dim() == 2
    )
    if not fits or not isinstance(height, int) or not isinstance(width, int):
        raise ValueError(f"layer {number} doesn't fit its numbers")
    return LayerNumbers(
        name, address, unit_address, (height, width), own["values"], own["images"], of_units, own["scores"],
        own["profile"],
    )  # fmt: skip


def joint_columns(first: GalleryNumbers, second: GalleryNumbers) -> tuple[Tensor, Tensor]:
    """Return where the images that both galleries' profiles have stand in each of them."""
    both = torch.isin(first.profile_images, second.profile_images)
    other = torch.isin(second.profile_images, first.profile_images)
    return both.nonzero().flatten(), other.nonzero().flatten()


def _said(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
