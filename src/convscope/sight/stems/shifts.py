"""Do a network's maps move with the image, and do its scores stay?

An image is padded by reflection, and windows of the network's own input size are cut from it, one pixel
further down and to the right in one case: both hold the same scene, without a seam. A layer with stride S
should then show the same map moved by 1/S of a position. So the first map is moved by that, and compared with
the second. Moves by whole positions are cuts, and exact. Other parts of a position go through the Fourier
transform: the map times a Hann window is moved, and compared with the second map times the moved window,
which is exact for maps whose frequencies the stride can carry, and so shows aliasing and nothing else.

Only positions are compared whose receptive field lies inside both windows; where there are none, or no field
is known, all are, and the result says so.

Source: Zhang 2019, "Making convolutional networks shift-invariant again" (arXiv 1904.11486), section 4.1 for
internal distances and consistency; there maps are upsampled by their nearest value before they are moved.

Limits: one direction, the diagonal; the share of agreeing scores rests on few images.

Legend: N images, U units, H and W the map.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from convscope.probe import Visit, probing
from convscope.sight.stems.diagnosis import LayerShift, Shifts
from convscope.tape import Tape
from convscope.tape.receptive_field import ReceptiveField, receptive_fields

PER_SIDE = 14
"""Windows of the size n lie up to 2 · n/14 apart: ImageNet's crops of 224 from 256 are."""
_SMALLEST = 5
_ROUNDING = 1e-12
_BATCH = 4
_COMPARED = 8  # images whose maps are compared, at least; the scores are of all
Shift = tuple[int, int]


@dataclass
class Watched:
    """One layer whose maps are compared.

    Attributes:
        name, address, value: of the operator whose output is compared.
    """

    name: str
    address: str
    value: int
    squares: list[Tensor] = field(default_factory=list)
    map_size: tuple[int, int] = (0, 0)


def shifts_of(
    model: nn.Module, tape: Tape, layers: list[Watched], images: Float[Tensor, "n c h w"]
) -> Shifts:
    """Return how layers and scores follow shifts of some images.

    Args:
        model: runs in evaluation mode and comes back as it was.
        tape: of one run.
        layers: which ones.
        images: as the network gets them, on its device.
    """
    height, width = (int(size) for size in images.shape[2:])
    reach = (min(height, width) // PER_SIDE) or 1
    # Reflection needs an image larger than its margin; smaller ones repeat their last pixel.
    mode = "reflect" if reach < min(height, width) else "replicate"
    padded = F.pad(images.float(), (reach,) * 4, mode=mode).to(images)
    fields = receptive_fields(tape)
    plans = {each.address: _Plan(each, tape, fields, (height, width), (1, 1)) for each in layers}
    random = torch.Generator().manual_seed(0)
    agree = {"pixel": list[bool](), "crops": list[bool]()}
    with torch.no_grad(), probing(model) as probe:
        listening = True

        def reader(visit: Visit, result: Any) -> None:
            if listening:
                plans[str(visit.site.address)].add(result[0] if isinstance(result, tuple) else result)

        for each in layers:
            probe.read(each.address, reader)
        every = max(1, len(padded) // _COMPARED)
        for number, part in enumerate(torch.split(padded, _BATCH)):
            listening = number % every == 0
            places = torch.zeros(len(part), 2, 2, dtype=torch.int64)
            places[:, 1] = 1
            agree["pixel"] += _agreement(model(_windows(part, places, (height, width))))
            listening = False
            places = torch.randint(2 * reach + 1, (len(part), 2, 2), generator=random)
            agree["crops"] += _agreement(model(_windows(part, places, (height, width))))
    return Shifts(
        layers=tuple(plan.result() for plan in plans.values()),
        top1_pixel=_share(agree["pixel"]),
        top1_crops=_share(agree["crops"]),
        furthest=2 * reach,
        num_images=len(images),
    )


def moved_distance(
    still_NUHW: Float[Tensor, "n u h w"],
    moved_NUHW: Float[Tensor, "n u h w"],
    by: tuple[float, float],
    *,
    windowed: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the squares ‖expected − moved‖² and ‖moved‖² per channel, the channel's mean taken away.

    A channel that is constant has a ‖moved‖² of NaN.

    Args:
        still_NUHW: maps of the image.
        moved_NUHW: maps of the image moved up and to the left.
        by: how many positions further down and right the moved maps should have been in the still ones.
        windowed: with a Hann window also for whole positions, which do without.

    Example:
        >>> maps = torch.rand(2, 3, 8, 9)
        >>> error, _ = moved_distance(maps[..., :-1, :-2], maps[..., 1:, 2:], (1.0, 2.0))
        >>> float(error.sum())
        0.0
    """
    still, moved = still_NUHW.double(), moved_NUHW.double()
    parts = []
    for dim, amount in zip((2, 3), by):
        whole = int(amount)
        length = still.shape[dim] - whole
        still, moved = still.narrow(dim, whole, length), moved.narrow(dim, 0, length)
        parts.append(amount - whole)
    mean = still.mean((2, 3), keepdim=True)
    still, moved = still - mean, moved - mean
    if any(parts) or windowed:
        for dim, part in zip((2, 3), parts):
            still = _fourier_moved(still * _window(still, dim, 0.0), dim, part)
            moved = moved * _window(moved, dim, part)
    energy = moved.square().sum((0, 2, 3))
    # Maps that are constant but for rounding have no direction to move in.
    raw = moved_NUHW.double().square().sum((0, 2, 3))
    energy = energy.masked_fill(energy <= _ROUNDING * raw, torch.nan)
    return (still - moved).square().sum((0, 2, 3)).cpu(), energy.cpu()


class _Plan:
    """The comparison of one layer."""

    def __init__(
        self,
        layer: Watched,
        tape: Tape,
        fields: dict[int, ReceptiveField | None],
        image: tuple[int, int],
        by: Shift,
    ) -> None:
        self.layer, self.by = layer, by
        found = fields.get(layer.value)
        shape = tape.values[layer.value].shape
        self.map_size = (shape[2], shape[3])
        rough = tuple(max(1, round(size / length)) for size, length in zip(image, self.map_size))
        self.stride = found.stride if found and min(found.stride) > 0 else (rough[0], rough[1])
        inner = [_inside(found, axis, image[axis], self.map_size[axis]) for axis in (0, 1)] if found else []
        self.sees_border = not inner or any(end - start < _SMALLEST for start, end in inner)
        whole = [(0, length) for length in self.map_size]
        self.rows, self.columns = (slice(*ends) for ends in (whole if self.sees_border else inner))
        self.sums: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, maps: Tensor) -> None:
        """Take a batch into account: images and moved images in turn."""
        if maps.dim() != 4 or min(maps.shape[2:]) < _SMALLEST:
            return
        maps = maps[:, :, self.rows, self.columns]
        still, moved = maps[0::2], maps[1::2]
        by = (self.by[0] / self.stride[0], self.by[1] / self.stride[1])
        error, size = moved_distance(still, moved, by)
        windowed = any(amount % 1 for amount in by)
        plain, whole = moved_distance(still, moved, (0.0, 0.0), windowed=windowed)
        self.sums.append((error / size, plain / whole, size))

    def result(self) -> LayerShift:
        """Return the medians over the channels."""
        distance, change = (self._typical(index) for index in (0, 1))
        return LayerShift(
            name=self.layer.name,
            address=self.layer.address,
            stride=self.stride,
            map_size=self.map_size,
            distance=distance,
            change=change,
            sees_border=self.sees_border,
        )

    def _typical(self, index: int) -> float | None:
        if not self.sums:
            return None
        values = torch.stack([each[index] for each in self.sums]).nanmean(0).sqrt()
        known = values[values.isfinite()]
        return float(known.quantile(0.5)) if len(known) else None


def _inside(found: ReceptiveField, axis: int, image: int, length: int) -> tuple[int, int]:
    """The positions whose field lies in the image."""
    offset, stride, size = found.offset[axis], max(1, found.stride[axis]), found.size[axis]
    start = max(0, -(offset // stride))
    end = min(length, (image - size - offset) // stride + 1)
    return start, max(start, end)


def _windows(padded: Tensor, places: Tensor, size: tuple[int, int]) -> Tensor:
    """Two windows of every image, in turn: (2n, c, h, w)."""
    return torch.stack(
        [
            image[:, top : top + size[0], left : left + size[1]]
            for image, pair in zip(padded, places.tolist())
            for top, left in pair
        ]
    )


def _agreement(output: Any) -> list[bool]:
    """Whether the two windows of each image have the same highest score."""
    scores = next((leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)), None)
    if scores is None or scores.dim() != 2 or scores.shape[1] < 2:
        return []
    best = scores.argmax(1)
    agree: list[bool] = (best[0::2] == best[1::2]).tolist()
    return agree


def _share(agree: list[bool]) -> float | None:
    return sum(agree) / len(agree) if agree else None


def _window(maps: Tensor, dim: int, by: float) -> Tensor:
    length = maps.shape[dim]
    place = (torch.arange(length, dtype=torch.float64, device=maps.device) + 0.5 + by) / length
    window = 0.5 - 0.5 * torch.cos(2 * torch.pi * place)
    return window[:, None] if dim == 2 else window


def _fourier_moved(maps: Tensor, dim: int, by: float) -> Tensor:
    """Maps moved by a part of a position: the value at x + by stands at x."""
    length = maps.shape[dim]
    frequencies = torch.fft.rfftfreq(length, dtype=torch.float64, device=maps.device)
    turn = torch.exp(2j * torch.pi * frequencies * by)
    if dim == 2:
        turn = turn[:, None]
    moved: Tensor = torch.fft.irfft(torch.fft.rfft(maps, dim=dim) * turn, length, dim=dim)
    return moved
