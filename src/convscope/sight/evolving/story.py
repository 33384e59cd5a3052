"""From the moments of a training to its layers' and units' stories."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from convscope.sight.evolving.convergence import aligned_cosine, converged_at, correlations, middle
from convscope.sight.evolving.moment import Moment
from convscope.sight.evolving.result import EvolvingLayer, EvolvingUnit
from convscope.sight.evolving.strip import save_strip


def layer_story(moments: Sequence[Moment], number: int, threshold: float, folder: Path) -> EvolvingLayer:
    """Return a layer's story and write its strip.

    Args:
        moments: in order.
        number: of the layer.
        threshold: of convergence.
        folder: for the strip.
    """
    epochs = [moment.epoch for moment in moments]
    rows, last = [moment.layers[number] for moment in moments], moments[-1].layers[number]
    units = tuple(_unit(moments, number, unit) for unit in last.units)
    alike = tuple(middle([unit.alike[place] for unit in units]) for place in range(len(moments)))
    final = moments[-1].tensors[f"response.{number}"]
    response = tuple(middle(correlations(moment.tensors[f"response.{number}"], final)) for moment in moments)
    strip = f"{number:02d}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', last.name)[:80]}.png" if units else ""
    if strip:
        save_strip(moments, number, folder / strip)
    return EvolvingLayer(
        name=last.name,
        address=last.address,
        unit_address=last.unit_address,
        receptive_field=last.field,
        num_units=last.num_units,
        num_dead=tuple(row.num_dead for row in rows),
        alike=alike,
        converged=converged_at(epochs, alike, threshold),
        response=response,
        response_converged=converged_at(epochs, response, threshold),
        units=units,
        not_projected=last.not_projected or "",
        strip=strip,
    )


def _unit(moments: Sequence[Moment], number: int, unit: int) -> EvolvingUnit:
    seen = [moment.layers[number].units[unit] for moment in moments]
    pictures = [moment.tensors.get(f"projection.{number}.{unit}") for moment in moments]
    last, window = (seen[-1], pictures[-1]), moments[-1].layers[number].field
    alike = tuple(
        None
        if picture is None or last[1] is None
        else aligned_cosine(window, (each, picture), (last[0], last[1]))
        for each, picture in zip(seen, pictures)
    )
    jumps = tuple(
        after.epoch
        for before, after in pairwise(seen)
        if None not in (before.image, after.image) and before.image != after.image
    )
    return EvolvingUnit(unit, tuple(seen), alike, jumps)
