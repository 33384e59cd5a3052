"""What the winners' positions see in layers whose windows differ by position.

Behind upsampling, or where branches of different strides meet, no receptive field holds at every position:
one backward pass for each position finds its box (:mod:`convscope.sight.projecting.reach`). A layer whose
central position sees the whole image is left out.
"""

from collections.abc import Mapping

import torch
from torch import nn

from convscope.sight.collecting.tally import Tally
from convscope.sight.picturing.places import places_of
from convscope.sight.picturing.plan import Plan
from convscope.sight.projecting.projection import Box
from convscope.sight.projecting.projector import for_model
from convscope.sight.projecting.reach import reach
from convscope.sight.units.maps import UnitMaps

Boxes = dict[tuple[int, int], Box]
"""By position (y, x)."""


def varying_boxes(model: nn.Module, planned: Plan, tallies: Mapping[str, Tally]) -> dict[int, Boxes]:
    """Return the boxes of all winners' positions, by the layers' values; none of the other layers.

    Args:
        model: the network.
        planned: how its layers are looked at.
        tallies: what the scan found, by the units' address.
    """
    found: dict[int, Boxes] = {}
    if planned.rule == "gradient":  # which goes by way of gates, too, and so may see everything
        return found
    for unit, reason in zip(planned.units, planned.not_projected, strict=True):
        if reason is None and planned.fields.get(unit.value) is None:
            boxes = _boxes(model, planned, unit, tallies[unit.unit_address])
            if boxes:
                found[unit.value] = boxes
    return found


def _boxes(model: nn.Module, planned: Plan, unit: UnitMaps, tally: Tally) -> Boxes:
    tape, (height, width) = planned.tape, unit.map_size
    channels = tape.values[tape.inputs[0]].shape[1]
    image = for_model(model, torch.zeros(1, channels, *planned.image_size))
    middle = reach(model, tape, unit.value, [(height // 2, width // 2)], image)
    if middle is None or middle[0] == Box(0, 0, *planned.image_size):
        return {}
    positions = sorted({place.position for place in places_of(tally)})
    seen = reach(model, tape, unit.value, positions, image)
    return dict(zip(positions, seen or (), strict=True))
