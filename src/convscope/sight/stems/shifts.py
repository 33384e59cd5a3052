"""Do a network's maps move with the image, and do its scores stay?

An image is padded by reflection, and windows of the network's own input size are cut from it, one pixel
further down and to the right in one case: both hold the same scene, without a seam. A layer with stride S
should then show the same map moved by 1/S of a position. So the first map is moved by that, and compared with
the second; see :mod:`convscope.sight.stems.moving`.

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

from convscope.core.errors import ConvscopeError
from convscope.probe import Visit, probing
from convscope.sight.stems.moving import moved_distance
from convscope.sight.stems.strides import LayerShift, Shifts
from convscope.tape import Tape
from convscope.tape.receptive_field import ReceptiveField, receptive_fields

PER_SIDE = 14
"""Windows of the size n lie up to 2 · n/14 apart: ImageNet's crops of 224 from 256 are."""
_SMALLEST = 5
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
    if bool(scores.isnan().any()):
        raise ConvscopeError(
            "a network whose scores are NaN",
            "scores that are numbers",
            "look for NaN or infinite weights, or run in a wider dtype",
        )
    best = scores.argmax(1)
    agree: list[bool] = (best[0::2] == best[1::2]).tolist()
    return agree


def _share(agree: list[bool]) -> float | None:
    return sum(agree) / len(agree) if agree else None
