"""Random networks: hypothesis draws each step among those that fit the values so far.

Batch norms stand anywhere; layers, batch norms and weights are called again and tied; values are branched,
joined, cut, shuffled, pooled, gated and written to in place.
"""

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn

from fold.micro.case import randomise
from fold.micro.functions import MOVED, PAIRS, POINTWISE
from fold.micro.grown import Grower

STEPS = {}
"""A function by its name: given a grower and the number of a value, it adds a step or several."""


def step(function):
    STEPS[function.__name__] = function
    return function


def unary(grower, i, name, function):
    grower.add(f"{name}({i})", lambda net, values: function(values[i]))


@step
def layer(grower, i):
    k = grower.layer(grower.channels(i), same=grower.is_small(i))
    grower.add(f"layer{k}({i})", lambda net, values: net.layers[k](values[i]))


@step
def norm(grower, i):
    if grower.draw(st.integers(0, 9)) == 9:
        function_norm(grower, i)
        return
    k = grower.norm(grower.channels(i))
    grower.add(f"norm{k}({i})", lambda net, values: net.norms[k](values[i]))


@step
def layer_norm_pair(grower, i):
    """A convolution of its own and its batch norm: nothing can keep these two apart."""
    grower.net.layers.append(grower.new_layer(grower.channels(i), None, same=grower.is_small(i)))
    k = len(grower.net.layers) - 1
    n = grower.new_norm(grower.net.layers[k].out_channels)
    grower.net.private.append(f"norms.{n}")
    grower.add(f"norm{n}(layer{k}({i}))", lambda net, values: net.norms[n](net.layers[k](values[i])))


@step
def linear_over_channels(grower, i):
    channels = grower.channels(i)
    made = nn.Linear(channels, grower.choose(channels, 5), bias=grower.draw(st.booleans()))
    grower.net.layers.append(made)
    k = len(grower.net.layers) - 1
    grower.add(
        f"linear{k}({i})",
        lambda net, values: net.layers[k](values[i].permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    )


class Statistics(nn.Module):
    """What a batch norm holds, without being one."""

    def __init__(self, channels):
        super().__init__()
        self.num_features = None  # no other step calls it
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))


def function_norm(grower, i):
    """A batch norm as a function in the network's own code."""
    grower.net.norms.append(Statistics(grower.channels(i)))
    n = len(grower.net.norms) - 1

    def run(net, values):
        norm = net.norms[n]
        return F.batch_norm(values[i], norm.running_mean, norm.running_var, norm.weight, norm.bias)

    grower.add(f"function_norm{n}({i})", run)


@step
def preactivation_block(grower, i):
    channels = grower.channels(i)
    k, m = grower.layer(channels, same=True), None
    middle = grower.net.layers[k].out_channels
    n, o = grower.norm(channels), grower.norm(middle)
    m = grower.layer(middle, channels, same=True)

    def run(net, values):
        y = net.layers[k](F.relu(net.norms[n](values[i])))
        return values[i] + net.layers[m](F.relu(net.norms[o](y)))

    grower.add(f"preactivation(norm{n}, layer{k}, norm{o}, layer{m})({i})", run)


@step
def parallel_branches(grower, i):
    channels = grower.channels(i)
    grower.net.layers.extend(
        [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.Conv2d(channels, channels, 1)]
    )
    k = len(grower.net.layers) - 2
    a, b, c = (grower.new_norm(channels) for _ in range(3))
    grower.net.private += [f"norms.{a}", f"norms.{b}"]

    def run(net, values):
        y = net.norms[a](net.layers[k](values[i])) + net.norms[b](net.layers[k + 1](values[i]))
        return y + net.norms[c](values[i])

    grower.add(f"parallel(layer{k}, norm{a}, norm{b}, norm{c})({i})", run)


@step
def dense_layer(grower, i):
    channels = grower.channels(i)
    if channels > 12:
        return
    n = grower.norm(channels)
    k = grower.layer(channels, 4, same=True)
    grower.add(
        f"dense(norm{n}, layer{k})({i})",
        lambda net, values: torch.cat([values[i], net.layers[k](F.relu(net.norms[n](values[i])))], 1),
    )


@step
def gate(grower, i):
    channels = grower.channels(i)
    grower.net.layers.append(nn.Conv2d(channels, channels, 1))
    k = len(grower.net.layers) - 1
    grower.add(
        f"gate{k}({i})",
        lambda net, values: values[i] * net.layers[k](values[i].mean((2, 3), keepdim=True)).sigmoid(),
    )


@step
def layer_scale(grower, i):
    grower.net.scales.append(nn.Parameter(torch.randn(1, grower.channels(i), 1, 1)))
    k, action = len(grower.net.scales) - 1, grower.choose("mul", "add", "rsub", "div")
    functions = {
        "mul": lambda x, c: c * x,
        "add": lambda x, c: x + c,
        "rsub": lambda x, c: c - x,
        "div": lambda x, c: x / (2 + c.abs()),
    }
    grower.add(f"{action}{k}({i})", lambda net, values: functions[action](values[i], net.scales[k]))


@step
def pair(grower, i):
    """Two values of one shape, in either order."""
    j, action = grower.like(i), grower.choose(*sorted(PAIRS))
    grower.add(f"{action}({i}, {j})", lambda net, values: PAIRS[action](values[i], values[j]))


@step
def concatenation(grower, i):
    j = grower.like(i, axis=1)
    if grower.channels(i) + grower.channels(j) <= 16:
        grower.add(f"cat({i}, {j})", lambda net, values: torch.cat([values[i], values[j]], 1))


@step
def pool(grower, i):
    if grower.is_small(i):
        return
    padding, ceil, counted = grower.choose(0, 1), grower.draw(st.booleans()), grower.draw(st.booleans())
    if grower.draw(st.booleans()):
        unary(grower, i, f"max_pool[{padding}, {ceil}]", nn.MaxPool2d(3, 2, padding, ceil_mode=ceil))
    else:
        made = nn.AvgPool2d(3, grower.choose(1, 2), padding, ceil, counted)
        unary(grower, i, f"avg_pool[{padding}, {ceil}, {counted}]", made)


@step
def larger(grower, i):
    if max(grower.values[i].shape[2:]) > 9:
        return
    options = {
        "nearest": lambda x: F.interpolate(x, scale_factor=2.0),
        "bilinear": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
        "zeros": lambda x: F.pad(x, (1, 0, 1, 1)),
        "ones": lambda x: F.pad(x, (1, 0, 1, 1), value=1.0),
        "reflect": lambda x: F.pad(x, (1, 0, 1, 1), mode="reflect"),
        "replicate": lambda x: F.pad(x, (1, 0, 1, 1), mode="replicate"),
    }
    name = grower.choose(*options)
    unary(grower, i, name, options[name])


@step
def pointwise(grower, i):
    name = grower.choose(*POINTWISE)
    unary(grower, i, name, POINTWISE[name])


@step
def moved(grower, i):
    name = grower.choose(*MOVED)
    condition, function = MOVED[name]
    if condition(*grower.values[i].shape[1:]):
        unary(grower, i, name, function)


NAMES = sorted([*STEPS, *["layer", "norm", "pointwise"] * 2])  # those that others are worth nothing without


@st.composite
def networks(draw, most_steps=8):
    """Draw a network in evaluation mode in float64, and the shape of its input."""
    shape = draw(st.sampled_from([(2, 3, 9, 7), (4, 4, 4, 4), (3, 6, 6, 8)]))
    grower = Grower(draw, shape)
    for _ in range(draw(st.integers(1, most_steps))):
        STEPS[draw(st.sampled_from(NAMES))](grower, grower.value())
    net = grower.net
    if draw(st.integers(0, 3)) == 0:
        net.returned.append(draw(st.integers(0, len(grower.values) - 1)))
    randomise(net.double().eval(), positive=draw(st.booleans()))
    return net, shape
