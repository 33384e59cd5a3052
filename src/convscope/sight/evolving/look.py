"""One look at a network in training: the strongest image of every unit, and pictures of the chosen ones."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.probe import Visit, probing
from convscope.sight.collecting.processes import Processes
from convscope.sight.collecting.scan import Scan, ScanOptions, scan
from convscope.sight.evolving.moment import Appearance, LayerMoment, Moment
from convscope.sight.images import ImageSource
from convscope.sight.picturing.plan import Plan, plan
from convscope.sight.picturing.tiles import as_rgb
from convscope.sight.picturing.winners import rounding_of
from convscope.sight.projecting.projection import Rule
from convscope.sight.projecting.projector import Projector, box_of, check_model, for_model, projecting
from convscope.sight.units.choice import chosen
from convscope.sight.units.maps import UnitMaps, units_of
from convscope.tape import device_of, record

NUM_FIXED = 64
"""Images over which the units' responses are compared from epoch to epoch."""
_TOGETHER = 16


@dataclass(frozen=True)
class Asked:
    """What is to be looked at: images, layers, how many units of each or which, and the rule."""

    images: ImageSource
    layers: str | list[str]
    units: int | Mapping[str, Sequence[int]]
    rule: Rule | None


def look_at(model: nn.Module, asked: Asked, epoch: int) -> Moment:
    """Return what an epoch has to show; every process of ``torch.distributed`` makes the same call.

    Raises:
        ConvscopeError: images, layers, units or a rule that don't fit the network, NaN activations, images
            that change from one reading to the next.
    """
    check_model(model)
    images = asked.images
    tape = record(model, for_model(model, images.sample()), device=device_of(model))
    units, left_out = units_of(tape)
    planned = plan(model, tape, chosen(units, asked.layers, tape), asked.rule, images)
    picked = [picked_units(unit, asked.units) for unit in planned.units]
    _check_names(asked.units, planned.units)
    scanned = scan(model, images, planned.units, 1, ScanOptions(statistics=False))

    def conclude() -> Moment:
        layers = tuple(
            _layer(planned, number, each, scanned, (images, epoch)) for number, each in enumerate(picked)
        )
        return Moment(
            epoch=epoch,
            weights=checksum(model),
            num_images=scanned.num_images,
            damaged=len(scanned.damaged),
            rule=planned.rule,
            rule_reason=planned.rule_reason,
            layers=layers,
            left_out=left_out,
            tensors={**_responses(model, images, planned), **_pictures(model, images, planned, layers)},
        )

    return Processes.current(torch.device(device_of(model))).first(conclude)


def picked_units(layer: UnitMaps, units: int | Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    """Return a layer's chosen units: evenly spaced channels, or those named; the same at every epoch.

    Raises:
        ConvscopeError: a channel that the layer doesn't have.
    """
    if isinstance(units, int):
        count = min(units, layer.num_units)
        return tuple(index * layer.num_units // count for index in range(count))
    wanted = tuple(
        sorted({int(unit) for name in (layer.name, layer.address) for unit in units.get(name, ())})
    )
    for unit in wanted:
        if not 0 <= unit < layer.num_units:
            raise ConvscopeError(
                f"unit {unit} of {layer.name}", f"0 to {layer.num_units - 1}", "choose a channel it has"
            )
    return wanted


def checksum(model: nn.Module) -> str:
    """Return a checksum of a model's parameters and buffers."""
    total = 0
    for tensor in (*model.parameters(), *model.buffers()):
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        total = zlib.crc32(content.numpy(), total)  # type: ignore[arg-type]
    return f"{total:08x}"


def _check_names(units: int | Mapping[str, Sequence[int]], layers: tuple[UnitMaps, ...]) -> None:
    known = {name for layer in layers for name in (layer.name, layer.address)}
    for name in () if isinstance(units, int) else units:
        if name not in known:
            raise ConvscopeError(
                f"units of {name!r}, which isn't among the layers",
                f"units of {', '.join(layer.name for layer in layers)}",
                "name the layer in layers too, or leave layers out",
            )


def _layer(
    planned: Plan, number: int, picked: tuple[int, ...], scanned: Scan, seen: tuple[ImageSource, int]
) -> LayerMoment:
    maps, (images, epoch) = planned.units[number], seen
    tally, window = scanned.tallies[maps.unit_address], planned.fields.get(maps.value)
    units = {}
    for unit in picked:
        value, image = float(tally.values[unit, 0]), int(tally.images[unit, 0])
        if not value > 0:
            units[unit] = Appearance(epoch, dead=True, value=value)
            continue
        y, x = divmod(int(tally.places[unit, 0]), tally.width)
        box = box_of(window, (y, x), planned.image_size)
        units[unit] = Appearance(epoch, False, value, image, images.name(image), (y, x), box)
    return LayerMoment(
        maps.name, maps.address, maps.unit_address, maps.num_units, window,
        planned.not_projected[number], int(tally.dead.sum()), units,
    )  # fmt: skip


def _responses(model: nn.Module, images: ImageSource, planned: Plan) -> dict[str, Tensor]:
    """The units' largest activations in each of some fixed images."""
    found: dict[str, list[Tensor]] = {f"response.{number}": [] for number in range(len(planned.units))}

    def keep(name: str, _: Visit, result: Any) -> None:
        maps = result[0] if isinstance(result, tuple) else result
        found[name].append(maps.amax((2, 3)).float().cpu())

    with torch.no_grad(), probing(model) as probe:
        for number, unit in enumerate(planned.units):
            probe.read(unit.unit_address, partial(keep, f"response.{number}"))
        for _, batch in images.batches(images.spread(NUM_FIXED)):
            model(for_model(model, batch))
    return {name: torch.cat(rows) for name, rows in found.items()}


def _pictures(
    model: nn.Module, images: ImageSource, planned: Plan, layers: tuple[LayerMoment, ...]
) -> dict[str, Tensor]:
    wanted = {each.image for layer in layers for each in layer.units.values() if each.image is not None}
    found: dict[str, Tensor] = {}
    if not wanted:
        return found
    with projecting(model, planned.tape, planned.rule) as projector:
        for indices, batch in images.batches(wanted):
            pixels = for_model(model, batch)
            for number, layer in enumerate(layers):
                here = [(unit, each) for unit, each in layer.units.items() if each.image in indices]
                for unit, each in here:
                    assert each.image is not None
                    patch = _cut(pixels[indices.index(each.image)], each).float().cpu().numpy()
                    found[f"patch.{number}.{unit}"] = torch.from_numpy(as_rgb(images.shown(patch)).copy())
                if layer.not_projected is None:
                    rows = [indices.index(each.image) for _, each in here if each.image is not None]
                    for unit, picture in _projections(projector, layer, here, pixels[rows]):
                        found[f"projection.{number}.{unit}"] = picture
    return found


def _projections(
    projector: Projector,
    layer: LayerMoment,
    here: list[tuple[int, Appearance]],
    images: Float[Tensor, "n c h w"],
) -> Iterator[tuple[int, Tensor]]:
    """Each unit's projection in its box, divided by its largest number so that float16 holds it."""
    for start in range(0, len(here), _TOGETHER):
        chunk = here[start : start + _TOGETHER]
        leaves, maps = projector.forward(layer.unit_address, images[start : start + _TOGETHER])
        seed, expected = torch.zeros_like(maps), torch.zeros(len(chunk))
        for row, (unit, each) in enumerate(chunk):
            assert each.position is not None
            seed[(row, unit, *each.position)] = 1
            expected[row] = each.value
        values = (maps.detach() * seed).sum((1, 2, 3)).float().cpu()
        if not bool(((values - expected).abs() <= rounding_of(maps)).all()):
            raise _changed(layer, chunk)
        for (unit, each), picture in zip(chunk, projector.backward(leaves, maps, seed)):
            cut = _cut(picture, each).float().cpu()
            yield unit, (cut / cut.abs().max().clamp(min=1e-30)).half()


def _cut(image: Float[Tensor, "c h w"], each: Appearance) -> Float[Tensor, "c bh bw"]:
    assert each.box is not None
    return image[:, each.box.top : each.box.bottom, each.box.left : each.box.right]


def _changed(layer: LayerMoment, chunk: list[tuple[int, Appearance]]) -> ConvscopeError:
    return ConvscopeError(
        f"images {', '.join(str(each.image) for _, each in chunk[:3])}: they activate units of {layer.name} "
        "otherwise at a second reading",
        "images that are the same, in the same order, each time they are read",
        "turn off shuffling and random augmentation",
    )
