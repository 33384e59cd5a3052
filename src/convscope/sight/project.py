"""``project``: one unit's picture in input space."""

from math import isfinite
from numbers import Integral

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convscope.core.address import parse_address
from convscope.core.errors import ConvscopeError
from convscope.probe import unknown_module
from convscope.sight.images import not_finite
from convscope.sight.judging.remarks import remarks_on
from convscope.sight.judging.scores import Spot, judge
from convscope.sight.projecting.below import Below
from convscope.sight.projecting.choice import chosen_rule
from convscope.sight.projecting.projection import Projection, Rule
from convscope.sight.projecting.projector import (
    at_position,
    box_of,
    check_model,
    for_model,
    projecting,
    strongest,
)
from convscope.sight.projecting.reach import reach
from convscope.sight.projecting.rules import check_rule
from convscope.sight.undisturbed import undisturbed
from convscope.sight.units.layout import channel_axes
from convscope.sight.units.maps import units_of
from convscope.tape import Tape, device_of, record


def project(
    model: nn.Module,
    image: Float[Tensor, "c h w"] | Float[Tensor, "1 c h w"],
    layer: str,
    unit: int,
    rule: Rule | None = None,
    position: tuple[int, int] | None = None,
) -> Projection:
    """Return one unit's projection to the input, with scores that say how far to trust it.

    The model runs in evaluation mode as far as the layer; the signal 1 at the unit's position goes back to
    the image with the rule in place of every activation's derivative, whether the activation is a module, a
    function, in place, shared or written out. Gates (squeeze-and-excitation, attention) and the norms' own
    statistics count as recorded switches, and no signal goes through them. The model comes back as it was.

    Args:
        model: any eager network for images.
        image: normalised for the network.
        layer: a module path (its output is meant, ``features.relu1``), or the address of a module call or
            operator call (``features.conv1#1:convolution.1``).
        unit: the channel, from 0.
        rule: ``"deconvnet"`` or ``"guided"`` (networks whose activations are ReLUs), ``"gated"`` (any
            x · gate(x)) or ``"gradient"``; see :mod:`convscope.sight.projecting.rules`. None for the one
            that suits the network (:func:`~convscope.sight.projecting.choice.chosen_rule`).
        position: (y, x) in the unit's map; None for the strongest.

    Raises:
        ConvscopeError: unknown layer (the nearest are named), rule, unit or position; an operator between
            image and unit that the rule says nothing about (named, with a rule that passes it); modules that
            can't be looked into (TorchScript, compiled); an image with NaN or infinite values, or one that
            the network doesn't take; a layer whose output is neither maps (channels before height and
            width) nor a vector, or isn't finite; a model on the meta device or made in inference mode.

    Not covered: products of two image-dependent factors neither of which is a gate have no rule but
    ``"gradient"``, nor have sigmoids and softmaxes on the way. A module path means what the module itself
    returns: what the user's own forward hooks on it make of that isn't seen; name an operator after it.

    Source: Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks"
        (arXiv 1311.2901), section 2.1.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 4, 3))
        >>> view = project(net, torch.rand(1, 12, 12), layer="3", unit=1, position=(0, 2))
        >>> view.rule, view.box, view.census.gated, tuple(view.image.shape)
        ('gated', Box(top=0, left=4, bottom=8, right=12), ('1#1:relu.1',), (12, 12, 1))
    """
    check_rule(rule)
    with undisturbed():
        return _project(model, _as_batch(image), layer, (unit, position), rule)


def _project(
    model: nn.Module,
    image: Tensor,
    layer: str,
    seeded: tuple[int, tuple[int, int] | None],
    asked: Rule | None,
) -> Projection:
    check_model(model)
    image, (unit, position) = for_model(model, image), seeded
    tape = record(model, image, device=device_of(model))
    address, value = locate(model, tape, layer)
    _check_unit(tape, value, address, unit, position)
    unit = int(unit)  # NumPy's whole numbers aren't Python's
    below = Below(tape)
    suited, why = _chosen(below, value)
    rule, reason = (suited, why) if asked is None else (asked, None)
    below.require_rule(value, rule)
    field, census = below.fields(rule).get(value), below.census(value, rule)
    with projecting(model, tape, rule) as projector:
        leaves, maps = projector.forward(address, image)
        place = _place(maps.detach(), unit, position)
        seed = torch.zeros_like(maps)
        at_position(seed, place)[0, unit] = 1
        seed_value = float(at_position(maps.detach(), place)[0, unit])
        if not isfinite(seed_value):
            raise _not_a_number(address, unit, seed_value)
        picture = projector.backward(leaves, maps, seed)[0]
        projector.require_applied(census)
        box = box_of(field, place, (image.shape[2], image.shape[3]))
        if field is None and place and rule != "gradient":  # which goes by way of gates, too
            with projector.aside():
                (box,) = reach(model, tape, value, [place], image) or (box,)
        spot = Spot(address, unit, place, box)
        scores = judge(projector, image, spot, picture)
    return Projection(
        image=picture.permute(1, 2, 0).contiguous().cpu(),
        rule=rule,
        rule_reason=reason,
        address=address,
        unit=unit,
        position=(place[0], place[1]) if place else None,
        receptive_field=field,
        box=spot.box,
        seed_value=seed_value,
        scores=scores,
        not_computed=scores.not_computed,
        census=census,
        findings=remarks_on(
            address, rule, census, scores, seed_value, template="" if suited == "deconvnet" else why
        ),
    )


def locate(model: nn.Module, tape: Tape, layer: str) -> tuple[str, int]:
    """Return the address that ``layer`` names and the value there.

    Raises:
        ConvscopeError: there is no such module, or nothing at that address in the recorded run.
    """
    if not isinstance(layer, str):
        raise ConvscopeError(
            f"layer {layer!r} of type {type(layer).__name__}",
            "a module path or an address, as text",
            "see `convscope cost` for the layers",
        )
    parsed = parse_address(layer)
    paths = {path or "self" for path, _ in model.named_modules()}
    if parsed.path not in paths:
        raise unknown_module(parsed.path, paths, _functional(model, tape))
    call = tape.find(parsed)
    if call is None or not call.outputs or call.outputs[0] is None:
        raise ConvscopeError(
            f"layer {layer!r}, which the network doesn't run on this image",
            "a module call or operator call that has an output",
            "see `convscope cost` for the addresses",
        )
    return str(parsed), call.outputs[0]


def _functional(model: nn.Module, tape: Tape) -> tuple[str, ...]:
    """Addresses of operators that make maps or vectors in modules with others within: no path names them."""
    containers = {path or "self" for path, module in model.named_modules() if any(module.children())}
    calls = (call for call in tape.in_phase("forward") if call.outputs and call.outputs[0] is not None)
    return tuple(
        str(call.address)
        for call in calls
        if call.address.path in containers and len(tape.values[call.output].shape) in (2, 4)
    )


def _chosen(below: Below, value: int) -> tuple[Rule, str]:
    """The rule for all of the network's units, or for this one where that isn't defined for it."""
    units = [unit.value for unit in units_of(below.tape)[0]] or [value]
    rule, reason = chosen_rule(below, units)
    return (rule, reason) if not below.without_rule(value, rule) else chosen_rule(below, [value])


def _as_batch(image: Tensor) -> Tensor:
    if isinstance(image, Tensor) and image.is_floating_point() and image.layout is torch.strided:
        batch = image[None] if image.dim() == 3 else image
        if batch.dim() == 4 and batch.shape[0] == 1 and not batch.is_meta:
            if not bool(batch.isfinite().all()):
                raise not_finite("an image")
            return batch
    shown = (
        f"{image.dtype} tensor of shape {tuple(image.shape)} ({image.layout}) on {image.device}"
        if isinstance(image, Tensor)
        else type(image).__name__
    )
    raise ConvscopeError(
        f"image: a {shown}",
        "one floating-point image (channels, height, width), normalised for the network",
        "pass images[0], say",
    )


def _check_unit(tape: Tape, value: int, address: str, unit: int, position: tuple[int, int] | None) -> None:
    shape = tape.values[value].shape
    if len(shape) not in (2, 4) or shape[0] != 1:
        raise _not_maps(address, shape)
    if channel_axes(tape).get(value, 1) != 1:
        raise ConvscopeError(
            f"layer {address!r} with an output of shape {shape}, whose channels aren't its second axis",
            "maps (1, channels, height, width)",
            "choose a layer whose channels come before height and width, such as a convolution",
        )
    if not _is_whole(unit) or not 0 <= unit < shape[1]:
        raise ConvscopeError(f"unit {unit!r} of {address}", f"0 to {shape[1] - 1}", "choose a channel it has")
    if position is None:
        return
    is_place = isinstance(position, tuple | list) and all(_is_whole(place) for place in position)
    if (
        not is_place
        or len(position) != len(shape) - 2
        or not all(0 <= p < size for p, size in zip(position, shape[2:]))
    ):
        raise ConvscopeError(
            f"position {position!r} in {address}",
            f"one in its map of {shape[2:]}",
            "leave it out for the strongest",
        )


def _is_whole(number: object) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


def _place(maps: Tensor, unit: int, position: tuple[int, int] | None) -> tuple[int, ...]:
    if maps.dim() == 2:
        return ()
    return strongest(maps[0, unit]) if position is None else (int(position[0]), int(position[1]))


def _not_a_number(address: str, unit: int, value: float) -> ConvscopeError:
    return ConvscopeError(
        f"unit {unit} of {address}, whose activation is {value}",
        "a finite number",
        "look for NaN or infinite weights, or run in a wider dtype",
    )


def _not_maps(layer: str, shape: tuple[int, ...]) -> ConvscopeError:
    return ConvscopeError(
        f"layer {layer!r} with an output of shape {shape}",
        "maps (1, channels, height, width) or a vector (1, channels)",
        "choose another layer; see `convscope cost`",
    )
