"""What is read while the window slides: the clean image's values, then those of every place, as maps."""

from dataclasses import dataclass

import torch
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.sight.occluding.plan import OcclusionPlan
from convscope.sight.occluding.result import ClassMaps, UnitMaps, drop_of
from convscope.sight.occluding.runs import Runs, Subject
from convscope.sight.occluding.sliding import Slide
from convscope.sight.projecting.projector import strongest


@dataclass(frozen=True)
class Clean:
    """What is read for the clean image.

    Attributes:
        probabilities: of all classes, and ``label``; None without class scores.
        channels: the followed units' maps, in float64.
        positions: of their maxima.
    """

    probabilities: Tensor | None
    label: int | None
    channels: tuple[Tensor, ...]
    positions: tuple[tuple[int, int] | None, ...]

    @staticmethod
    def of(
        subject: Subject, heard: list[Tensor], asked: tuple[int | None, ...], label: int | None
    ) -> "Clean":
        """Return it from what was heard, and settle which units are followed."""
        probabilities = None
        if subject.scores is not None:
            scores, place = subject.scores
            _check_finite(heard[0], place.address)
            probabilities = scores.probabilities(heard.pop(0))[0]
            label = int(probabilities.argmax()) if label is None else label
        for tensor, place in zip(heard, subject.places, strict=True):
            _check_finite(tensor, place.address)
        layers = [tensor[0].double() for tensor in heard]
        subject.units = [
            int(layer.flatten(1).sum(1).argmax()) if unit is None else unit
            for layer, unit in zip(layers, asked, strict=True)
        ]
        channels = tuple(layer[unit] for layer, unit in zip(layers, subject.units, strict=True))
        return Clean(
            probabilities,
            label,
            channels,
            tuple(strongest(channel) if channel.dim() == 2 else None for channel in channels),
        )


@dataclass(frozen=True)
class Followed:
    """What is read for all windows, in order: probability, label; of each unit total, maximum, place."""

    probability: Tensor
    labels: Tensor
    units: tuple[Tensor, ...]


def followed(runs: Runs, subject: Subject, clean: Clean, batch_size: int, plan: OcclusionPlan) -> Followed:
    """Return what is read at every place of the window, which goes over the image in batches."""
    found: list[tuple[Tensor, Tensor, list[Tensor]]] = []
    windows = list(range(runs.num_windows))
    for start in range(0, len(windows), batch_size):
        chunk = windows[start : start + batch_size]
        heard = runs.occluded(chunk)
        found.append(_read(subject, clean, heard))
        if plan.progress is not None:
            plan.progress(start + len(chunk), len(windows))
    return Followed(
        torch.cat([probability for probability, _, _ in found]),
        torch.cat([labels for _, labels, _ in found]),
        tuple(torch.cat(maps) for maps in zip(*(units for _, _, units in found), strict=True)),
    )


def _read(subject: Subject, clean: Clean, heard: list[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
    probability, labels = torch.empty(0), torch.empty(0, dtype=torch.int64)
    if subject.scores is not None:
        scores, place = subject.scores
        _check_finite(heard[0], place.address)
        probabilities = scores.probabilities(heard.pop(0)).cpu()
        probability, labels = probabilities[:, clean.label], probabilities.argmax(1)
    units = []
    for tensor, place, position in zip(heard, subject.places, clean.positions, strict=True):
        _check_finite(tensor, place.address)
        channel = tensor.double().cpu()
        flat = channel.reshape(len(channel), -1)
        at = flat[:, 0] if position is None else channel[:, position[0], position[1]]
        units.append(torch.stack([flat.sum(1), flat.amax(1), at], 1))
    return probability, labels, units


def class_maps(clean: Clean, subject: Subject, maps: Followed, slid: Slide, is_given: bool) -> ClassMaps:
    """Return the answer's maps."""
    assert subject.scores is not None
    assert clean.probabilities is not None
    assert clean.label is not None
    shape, clean_label = (slid.rows, slid.columns), int(clean.probabilities.argmax())
    probability = maps.probability.reshape(shape)
    clean_probability = float(clean.probabilities[clean.label])
    return ClassMaps(
        subject.scores[0].described,
        clean.label,
        is_given,
        clean_label,
        clean_probability,
        probability,
        maps.labels.reshape(shape),
        int((maps.labels != clean_label).sum()),
        drop_of(clean_probability, probability, slid.boxes),
    )


def unit_maps(
    clean: Clean, subject: Subject, number: int, maps: Followed, slid: Slide, asked: tuple[int | None, ...]
) -> UnitMaps:
    """Return the maps of the unit with a number among those that were asked for."""
    channel = clean.channels[number]
    total, maximum, place = (each.reshape(slid.rows, slid.columns) for each in maps.units[number].unbind(1))
    return UnitMaps(
        subject.places[number].address,
        subject.units[number],
        asked[number] is not None,
        clean.positions[number],
        float(channel.sum()),
        float(channel.max()),
        total,
        maximum,
        place,
        drop_of(float(channel.sum()), total, slid.boxes),
        bool(channel.max() > 0),
    )


def _check_finite(tensor: Tensor, address: str) -> None:
    if not bool(tensor.isfinite().all()):
        raise ConvscopeError(
            f"{address}, whose result isn't finite",
            "finite numbers",
            "look for NaN or infinite weights, or run in a wider dtype",
        )
