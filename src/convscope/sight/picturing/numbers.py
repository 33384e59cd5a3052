"""The numbers of all units of a gallery as one safetensors file, for programs.

Tensors of layer ``n`` are called ``n.values``, ``n.images`` and ``n.places`` (units × top; strongest first;
−inf, −1 and 0 where a unit has fewer images; a place is y·width + x in its map), ``n.maximum``,
``n.active_images``, with statistics ``n.minimum``, ``n.mean``, ``n.std`` and ``n.active_positions``, and
``n.scores`` (units × 4: selectivity, image dependence, randomisation, masking drop; NaN where there is none),
and ``n.profile`` (units × k, float32: the largest activation in each of the k images ``profile_images``; NaN
where the layer wasn't run).
The layers' names are in the header, as JSON under ``layers``.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from convscope.sight.collecting.tally import Tally
from convscope.sight.picturing.album import Layer

NUMBERS = "units.safetensors"
_SCORES = ("selectivity", "image_dependence", "randomisation", "masking_drop")


def write_numbers(layers: Sequence[Layer], tallies: Sequence[Tally], folder: Path) -> None:
    """Write the file into a gallery's folder."""
    # Images past a loader's end, and damaged ones, were seen by no layer.
    seen = ~torch.stack([tally.profile.peaks.isnan().all(0) for tally in tallies]).all(0)
    tensors: dict[str, Tensor] = {"profile_images": tallies[0].profile.images[seen]}
    for number, (layer, tally) in enumerate(zip(layers, tallies, strict=True)):
        found = {
            name: getattr(tally, name) for name in ("values", "images", "places", "maximum", "active_images")
        }
        if tally.statistics is not None:
            found |= {name: getattr(tally, name) for name in ("minimum", "mean", "std", "active_positions")}
        found |= {"scores": _scores(layer), "profile": tally.profile.peaks[:, seen]}
        tensors |= {f"{number}.{name}": tensor.contiguous() for name, tensor in found.items()}
    names = [{"name": layer.name, "unit_address": layer.unit_address} for layer in layers]
    (folder / NUMBERS).write_bytes(save(tensors, {"layers": json.dumps(names)}))


def _scores(layer: Layer) -> Tensor:
    rows = [
        [getattr(unit.scores, name) if unit.scores is not None else None for name in _SCORES]
        for unit in layer.units
    ]
    known = [[float("nan") if score is None else score for score in row] for row in rows]
    return torch.tensor(known, dtype=torch.float64)
