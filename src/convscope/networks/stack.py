"""What AlexNet and ZFNet have in common: five convolutions, three pools, three fully connected layers.

:func:`build` makes the module that a :class:`~convscope.networks.plan.Plan` describes. Which plans are
AlexNet and which ZFNet is said in their own files.
"""

from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.networks.initialise import initialise
from convscope.networks.plan import Convolution, Plan, last_map, minimum_size
from convscope.norm.choose import normalisation


class Stack(nn.Sequential):
    """A network of this family: ``features``, ``flatten``, ``classifier``.

    Attributes:
        plan: the numbers that it was built from.
    """

    plan: Plan


def build(plan: Plan, kind: type[Stack] = Stack) -> Stack:
    """Return the network that a plan describes, with fresh weights.

    Args:
        plan: what to build.
        kind: the class of the result.

    Returns:
        A module that maps ``(n, c, h, w)`` images, ``(c, h, w)`` being ``plan.input_shape``, to
        ``(n, num_classes)`` scores. Where ``plan.numbered`` it takes other sizes as well.

    Raises:
        ConvscopeError: the input is so small that no map is left before fc6.
    """
    height, width = (last_map(plan, side) for side in plan.input_size)
    if min(height, width) < 1:
        raise ConvscopeError(
            f"{plan.name}: an input of {plan.input_size[0]}x{plan.input_size[1]} pixels",
            f"at least {minimum_size(plan)} pixels a side with {plan.pool} pools",
            "choose a larger input size",
        )
    if plan.numbered:
        height = width = 6
    # Drawn first: what layers' own constructors draw depends on their sizes and biases.
    seed = int(torch.randint(2**62, (), device="cpu"))
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["features"] = _sequence(_features(plan), plan.numbered)
    if plan.numbered:
        parts["avgpool"] = nn.AdaptiveAvgPool2d((6, 6))
    parts["flatten"] = nn.Flatten()
    parts["classifier"] = _sequence(_classifier(plan, height * width), plan.numbered)
    network = kind(parts)
    network.plan = plan
    initialise(network, plan.init, plan.published_biases, plan.init_scale, seed)
    return network


def _features(plan: Plan) -> Iterator[tuple[str, nn.Module]]:
    channels = plan.in_channels
    for number, layer in plan.numbered_convolutions:
        window = (layer.kernel, layer.stride, layer.padding)
        yield (
            f"conv{number}",
            nn.Conv2d(channels, layer.channels, *window, groups=layer.groups, bias=plan.convolution_bias),
        )
        yield from _after_convolution(plan, layer, number)
        channels = layer.channels


def _after_convolution(plan: Plan, layer: Convolution, number: int) -> Iterator[tuple[str, nn.Module]]:
    """Normalisation, ReLU and pool in the plan's order: LRN is the only norm that comes after the ReLU."""
    lrn = plan.norm == "lrn" and layer.lrn
    if plan.norm not in ("none", "lrn"):
        yield f"norm{number}", normalisation(plan.norm, layer.channels)
    yield f"relu{number}", nn.ReLU(inplace=plan.numbered)
    if lrn and not plan.lrn_after_pool:
        yield f"norm{number}", normalisation("lrn", layer.channels)
    if layer.pooled:
        yield f"pool{number}", nn.MaxPool2d(plan.pool_kernel, stride=2, ceil_mode=plan.pools_hang)
    if lrn and plan.lrn_after_pool:
        yield f"norm{number}", normalisation("lrn", layer.channels)


def _classifier(plan: Plan, num_positions: int) -> Iterator[tuple[str, nn.Module]]:
    width = plan.convolutions[-1].channels * num_positions
    for number, hidden in plan.numbered_hidden:
        layers: list[tuple[str, nn.Module]] = [
            (f"fc{number}", nn.Linear(width, hidden)),
            (f"relu{number}", nn.ReLU(inplace=plan.numbered)),
        ]
        drop = (f"drop{number}", nn.Dropout(plan.dropout))
        yield from [drop, *layers] if plan.numbered else [*layers, drop]
        width = hidden
    yield "fc8", nn.Linear(width, plan.num_classes)


def _sequence(layers: Iterator[tuple[str, nn.Module]], numbered: bool) -> nn.Sequential:
    named = OrderedDict(layers)
    return nn.Sequential(*named.values()) if numbered else nn.Sequential(named)
