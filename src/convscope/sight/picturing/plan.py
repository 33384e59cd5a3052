"""What a gallery is about to do: the rule for all layers, and which of them can be projected.

A layer that can't be keeps its patches and statistics, with the reason; it doesn't stop the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.sight.collecting.tally import Tally
from convscope.sight.images import ImageSource
from convscope.sight.picturing.drawing import Drawing
from convscope.sight.picturing.places import extent_of, layer_look
from convscope.sight.picturing.sprites import Layout
from convscope.sight.projecting.below import Below
from convscope.sight.projecting.choice import chosen_rule
from convscope.sight.projecting.projection import Box, Rule
from convscope.sight.projecting.projector import for_model, projecting
from convscope.sight.units.maps import UnitMaps, units_of
from convscope.sight.units.own_images import require_own_images
from convscope.tape import Tape
from convscope.tape.receptive_field import ReceptiveField


@dataclass(frozen=True)
class Plan:
    """How the layers of a gallery are looked at.

    Attributes:
        tape: of a run of the network.
        below: what lies below its values.
        units: the layers.
        rule, rule_reason: of the projections, and why.
        template: why a deconvnet's signal doesn't depend on the image in most of the network, or empty.
        not_projected: by layer, why there are no projections of it, or None.
        fields: receptive fields along the signal's way, by value.
        image_size: (height, width) of the images.
    """

    tape: Tape
    below: Below
    units: tuple[UnitMaps, ...]
    rule: Rule
    rule_reason: str
    template: str
    not_projected: tuple[str | None, ...]
    fields: Mapping[int, ReceptiveField | None]
    image_size: tuple[int, int]

    def check_top(self, top: int) -> None:
        """Refuse more images per unit than sprites have room for, before anything is run.

        Raises:
            ConvscopeError: they have none in one of the layers.
        """
        for unit in self.units:
            Layout.of(unit.num_units, top, extent_of(self.fields.get(unit.value), self.image_size))

    def drawings(
        self,
        tallies: Mapping[str, Tally],
        num_judged: int | None,
        boxes: Mapping[int, Mapping[tuple[int, int], Box]] | None = None,
    ) -> list[Drawing]:
        """Return how the layers are drawn, after the scan.

        Args:
            tallies: what it found.
            num_judged: of how many units of a layer scores are measured; None for all.
            boxes: what positions see, where that differs by position, by the layers' values.
        """
        found = []
        for number, (unit, reason) in enumerate(zip(self.units, self.not_projected, strict=True)):
            tally, field = tallies[unit.unit_address], self.fields.get(unit.value)
            look = layer_look(
                number, unit, field, tally, self.image_size, num_judged if reason is None else 0, reason
            )
            look = replace(look, boxes=(boxes or {}).get(unit.value, {}))
            census = self.below.census(unit.value, self.rule) if reason is None else None
            found.append(Drawing.of(look, tally, census))
        return found


def plan(
    model: nn.Module, tape: Tape, units: tuple[UnitMaps, ...], rule: Rule | None, images: ImageSource
) -> Plan:
    """Return how the layers of a gallery are looked at.

    Args:
        model: the network.
        tape: of a run of it.
        units: the layers.
        rule: asked for, or None.
        images: the data set.

    Raises:
        ConvscopeError: a layer's activations depend on the other images of the batch, or no layer can be
            projected by the rule asked for.
    """
    below = Below(tape)
    require_own_images(below, [unit.value for unit in units])
    sample = for_model(model, images.sample())
    every = [unit.value for unit in units_of(tape)[0]] or [unit.value for unit in units]
    suited, why = chosen_rule(below, every)
    settled, reason = (rule, "given") if rule else (suited, why)
    not_projected = _reasons(model, below, units, settled, sample[:1])
    if rule and all(not_projected):
        raise ConvscopeError(
            f"rule={rule!r}, by which none of the layers can be projected ({not_projected[0]})",
            "at least one that can be",
            "choose another rule or other layers, or leave the rule out for patches alone",
        )
    fields = below.fields(settled)
    template = "" if suited == "deconvnet" else why
    size = (sample.shape[2], sample.shape[3])
    return Plan(tape, below, units, settled, reason, template, not_projected, fields, size)


def _reasons(
    model: nn.Module, below: Below, units: tuple[UnitMaps, ...], rule: Rule, image: Tensor
) -> tuple[str | None, ...]:
    """Why layers can't be projected, by what the rule says and by trying."""
    found: dict[str, ConvscopeError] = {}
    for unit in units:
        try:
            below.require_rule(unit.value, rule)
        except ConvscopeError as error:
            found[unit.unit_address] = error
    left = [unit.unit_address for unit in units if unit.unit_address not in found]
    if left:
        with projecting(model, below.tape, rule) as projector:
            leaves, maps = projector.forward_to(left, image)
            for address in left:
                try:
                    projector.backward(leaves, maps[address], torch.zeros_like(maps[address]), keep=True)
                except ConvscopeError as error:
                    found[address] = error
    reasons = (found.get(unit.unit_address) for unit in units)
    return tuple(None if error is None else f"{error.given}; {error.action}" for error in reasons)
