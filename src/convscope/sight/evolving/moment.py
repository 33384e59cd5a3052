"""What is kept of one epoch: each chosen unit's strongest image, its pictures, and all units' responses.

A moment is one safetensors file, with its numbers as JSON in the file's header, so it is whole or absent.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_file
from convscope.sight.projecting.projection import Box
from convscope.tape.receptive_field import ReceptiveField

_FORMAT = "convscope feature evolution 1"


@dataclass(frozen=True)
class Appearance:
    """One unit at one epoch.

    Attributes:
        epoch: after which it was looked at.
        dead: its activation is positive in no image.
        value: its largest activation.
        image: index of its strongest image, the first of equal ones; None if it is dead.
        name: of that image, or an empty text.
        position: (y, x) of the activation in its map; None if it is dead.
        box: the pixels which that position sees; None if it is dead.
    """

    epoch: int
    dead: bool
    value: float
    image: int | None = None
    name: str = ""
    position: tuple[int, int] | None = None
    box: Box | None = None


@dataclass(frozen=True)
class LayerMoment:
    """One layer at one epoch.

    Attributes:
        name, address, unit_address, num_units: see :class:`~convscope.sight.units.maps.UnitMaps`.
        field: its receptive field along the signal's way; None where it has no fixed one.
        not_projected: why there are no projections, or None.
        num_dead: of all its units.
        units: the chosen ones, by their channel.
    """

    name: str
    address: str
    unit_address: str
    num_units: int
    field: ReceptiveField | None
    not_projected: str | None
    num_dead: int
    units: dict[int, Appearance]


@dataclass(frozen=True)
class Moment:
    """A network at one epoch.

    Attributes:
        epoch: after which it was looked at.
        weights: checksum of its parameters and buffers.
        num_images: looked at.
        damaged: how many images were skipped.
        rule, rule_reason: of the projections, and why.
        layers: in order of execution.
        left_out: convolutions without units over the image, with the reasons.
        tensors: ``projection.LAYER.UNIT`` (c, h, w) float16, ``patch.LAYER.UNIT`` (h, w, 3) uint8, and
            ``response.LAYER`` (images, units), the largest activations in some fixed images.
    """

    epoch: int
    weights: str
    num_images: int
    damaged: int
    rule: str
    rule_reason: str
    layers: tuple[LayerMoment, ...]
    left_out: tuple[str, ...]
    tensors: dict[str, Tensor] = field(repr=False, compare=False)


def moment_file(folder: Path, epoch: int) -> Path:
    """Return the file of an epoch."""
    return folder / f"epoch-{epoch:06d}.safetensors"


def epochs_in(folder: Path) -> tuple[int, ...]:
    """Return the epochs that a folder has."""
    names = (path.stem.removeprefix("epoch-") for path in folder.glob("epoch-*.safetensors"))
    return tuple(sorted(int(name) for name in names if name.isdecimal()))


def save_moment(moment: Moment, folder: Path) -> None:
    """Write a moment into a folder.

    Raises:
        ConvscopeError: it can't be written.
    """
    numbers = {name: value for name, value in vars(moment).items() if name != "tensors"}
    numbers["format"] = _FORMAT  # one entry in the header: safetensors writes several in any order
    numbers["layers"] = [asdict(layer) for layer in moment.layers]
    path = moment_file(folder, moment.epoch)
    try:
        with whole_file(path) as temporary:
            save_file(moment.tensors, temporary, {"moment": json.dumps(numbers)})
    except (OSError, SafetensorError) as error:
        raise ConvscopeError(
            f"output {str(path)!r} can't be written ({error})", "room in a folder that you may write to",
            "make room, or choose another folder",
        ) from error  # fmt: skip


def load_moment(folder: Path, epoch: int) -> Moment:
    """Read a moment.

    Raises:
        ConvscopeError: the file is damaged or isn't a moment.
    """
    path = moment_file(folder, epoch)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            numbers = json.loads((file.metadata() or {})["moment"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if numbers.pop("format") != _FORMAT:
            raise ValueError("another version")
        return _moment(numbers, tensors)
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ConvscopeError(
            f"epoch file {str(path)!r}, which can't be read ({error})",
            "one that cs.sight.Evolution has written",
            "delete it: the epoch is measured again when the training comes by",
        ) from error


def _moment(numbers: dict[str, Any], tensors: dict[str, Tensor]) -> Moment:
    layers = tuple(_layer(layer) for layer in numbers.pop("layers"))
    left_out = tuple(numbers.pop("left_out"))
    return Moment(**numbers, layers=layers, left_out=left_out, tensors=tensors)


def _layer(numbers: dict[str, Any]) -> LayerMoment:
    window = numbers.pop("field")
    window = window and ReceptiveField(**{name: tuple(value) for name, value in window.items()})
    units = {int(unit): _appearance(each) for unit, each in numbers.pop("units").items()}
    return LayerMoment(**numbers, field=window, units=units)


def _appearance(numbers: dict[str, Any]) -> Appearance:
    box, position = numbers.pop("box"), numbers.pop("position")
    return Appearance(**numbers, box=box and Box(**box), position=position and tuple(position))
