"""New weights of layers, number by number: against convolution written out, and against their formula."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from convscope.fold.gauge.gauges import Gauges
from fold.gauge.claims import Recorded, case

SEQUENCE, IMAGE, CUBE = (2, 4, 5), (2, 4, 4, 3), (2, 4, 3, 2, 3)

LAYERS = {
    "1d": (lambda: nn.Conv1d(4, 6, 3, 2), SEQUENCE),
    "2d": (lambda: nn.Conv2d(4, 6, (3, 2), dilation=(1, 2)), IMAGE),
    "3d": (lambda: nn.Conv3d(4, 6, 2, bias=False), CUBE),
    "square": (lambda: nn.Conv2d(4, 4, 2), IMAGE),
    "groups": (lambda: nn.Conv2d(4, 6, 2, groups=2), IMAGE),
    "square in groups": (lambda: nn.Conv2d(4, 4, 2, groups=2, bias=False), IMAGE),
    "depthwise": (lambda: nn.Conv2d(4, 4, 2, groups=4), IMAGE),
    "depthwise, two each": (lambda: nn.Conv2d(4, 8, 2, groups=4), IMAGE),
    "transposed 1d": (lambda: nn.ConvTranspose1d(4, 6, 1), SEQUENCE),
    "transposed 3d": (lambda: nn.ConvTranspose3d(4, 6, 1, bias=False), CUBE),
    "transposed, square": (lambda: nn.ConvTranspose2d(4, 4, 1), IMAGE),
    "transposed, groups": (lambda: nn.ConvTranspose2d(4, 6, 1, groups=2), IMAGE),
    "transposed, square in groups": (lambda: nn.ConvTranspose2d(4, 4, 1, groups=2, bias=False), IMAGE),
    "transposed, depthwise": (lambda: nn.ConvTranspose2d(4, 8, 1, groups=4), IMAGE),
    "linear": (lambda: nn.Linear(4, 6), (3, 4)),
    "linear, square": (lambda: nn.Linear(4, 4, bias=False), (4, 4)),
}


def gauges_for(layer, num_labels, seed=0, *, shifts=True):
    """Random gauges of all labels, some scales negative."""
    rng = np.random.default_rng(seed)
    scales = rng.uniform(0.5, 2.0, num_labels) * rng.choice([-1, 1], num_labels)
    moved = rng.normal(size=num_labels) * shifts
    scales[0], moved[0] = 1.0, 0.0
    gauges = Gauges(torch.from_numpy(scales), torch.from_numpy(moved))
    return gauges, *(each.numpy() for labels in (layer.inputs, layer.outputs) for each in gauges.of(labels))


def read(make, shape):
    """A recorded network of one layer, and that layer."""
    recorded = Recorded(case(lambda s, x: s.layer(x), shape, layer=make), [(1,)])
    (layer,) = recorded.reading.layers.values()
    return recorded, layer


def weights_by_channel(module):
    """The weights as W[output][input], an array of taps each, zeros across groups."""
    weight = module.weight.detach().double().numpy()
    groups, transposed = getattr(module, "groups", 1), getattr(module, "transposed", False)
    rows, columns = weight.shape[:2]
    outputs, inputs = (columns * groups, rows) if transposed else (rows, columns * groups)
    made = np.zeros((outputs, inputs, *weight.shape[2:]))
    for row, column in itertools.product(range(rows), range(columns)):
        if transposed:
            group = row // (inputs // groups)
            made[group * columns + column, row] = weight[row, column]
        else:
            group = row // (outputs // groups)
            made[row, group * columns + column] = weight[row, column]
    return made


def written_out(module, x):
    """A layer's output by its definition, tap by tap; of transposed ones those of size 1."""
    weight = weights_by_channel(module)
    bias = np.zeros(len(weight)) if module.bias is None else module.bias.detach().double().numpy()
    num_axes = x.ndim - 2
    stride, dilation = (getattr(module, name, (1,) * num_axes) for name in ("stride", "dilation"))
    sizes = [
        (x.shape[2 + i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i] + 1
        for i in range(num_axes)
    ]
    y = np.zeros((x.shape[0], len(weight), *sizes))
    for place in itertools.product(*map(range, sizes)):
        for tap in itertools.product(*map(range, weight.shape[2:])):
            at = tuple(p * s + t * d for p, s, t, d in zip(place, stride, tap, dilation, strict=True))
            y[(..., *place)] += x[(..., *at)] @ weight[(..., *tap)].T
    return y + bias.reshape(-1, *(1,) * num_axes)


def lifted(numbers, x):
    return numbers.reshape(-1, *(1,) * (x.ndim - 2))


@pytest.mark.parametrize("name", LAYERS)
def test_layer_of_gauged_inputs(name):
    make, shape = LAYERS[name]
    recorded, layer = read(make, shape)
    gauges, a_in, b_in, a_out, b_out = gauges_for(layer, recorded.system.num_labels)
    net = copy.deepcopy(recorded.net)
    x = np.random.default_rng(1).normal(size=shape)
    y = written_out(net.layer, x)
    assert np.allclose(y, net.layer(torch.from_numpy(x)).detach().numpy()), "the oracle itself"
    layer.edit(gauges)(net)
    moved = torch.from_numpy(lifted(a_in, x) * x + lifted(b_in, x))
    assert np.allclose(
        net(moved).detach().numpy(), lifted(a_out, y) * y + lifted(b_out, y), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LAYERS)
def test_weights_are_cast_once(name, dtype):
    make, shape = LAYERS[name]
    recorded, layer = read(make, shape)
    gauges, a_in, b_in, a_out, b_out = gauges_for(layer, recorded.system.num_labels)
    net = copy.deepcopy(recorded.net).to(dtype)
    before, bias = weights_by_channel(net.layer), net.layer.bias
    bias = 0.0 if bias is None else bias.detach().double().numpy()
    layer.edit(gauges)(net)
    taps = before.reshape(*before.shape[:2], -1)
    expected = (a_out[:, None, None] * taps / a_in[None, :, None]).reshape(before.shape)
    offset = a_out * (bias - (taps * (b_in / a_in)[None, :, None]).sum((1, 2))) + b_out
    rounding = torch.finfo(dtype).eps
    assert net.layer.weight.dtype == net.layer.bias.dtype == dtype
    assert np.allclose(weights_by_channel(net.layer), expected, rtol=rounding, atol=1e-6)
    assert np.allclose(net.layer.bias.detach().double().numpy(), offset, rtol=rounding, atol=1e-6)


def test_nothing_to_do():
    recorded, layer = read(*LAYERS["2d"])
    ones = torch.ones(recorded.system.num_labels, dtype=torch.float64)
    assert layer.edit(Gauges(ones, 0 * ones)) is None


def test_scales_alone_need_no_bias():
    recorded, layer = read(lambda: nn.Conv2d(4, 6, 2, bias=False), IMAGE)
    net = copy.deepcopy(recorded.net)
    layer.edit(gauges_for(layer, recorded.system.num_labels, shifts=False)[0])(net)
    assert net.layer.bias is None


@pytest.mark.parametrize("trained", [True, False])
def test_a_new_bias_is_like_the_weight(trained):
    recorded, layer = read(lambda: nn.Conv2d(4, 6, 2, bias=False), IMAGE)
    net = copy.deepcopy(recorded.net).requires_grad_(trained)
    layer.edit(gauges_for(layer, recorded.system.num_labels)[0])(net)
    assert isinstance(net.layer.bias, nn.Parameter)
    assert net.layer.bias.requires_grad is net.layer.weight.requires_grad is trained
    assert set(net.state_dict()) == {"layer.weight", "layer.bias"}


class Held(nn.Module):
    """A linear layer whose weight is held as it is read, or the other way round."""

    def __init__(self, transposed):
        super().__init__()
        self.transposed = transposed
        self.weight = nn.Parameter(torch.randn(6, 4) if transposed else torch.randn(4, 6))
        self.bias = nn.Parameter(torch.randn(6))

    def forward(self, x):
        return torch.addmm(self.bias, x, self.weight.t() if self.transposed else self.weight)


@pytest.mark.parametrize("transposed", [True, False])
def test_either_way_of_holding_a_matrix(transposed):
    recorded, layer = read(lambda: Held(transposed), (3, 4))
    gauges, a_in, b_in, a_out, b_out = gauges_for(layer, recorded.system.num_labels)
    net, x = copy.deepcopy(recorded.net), torch.randn(3, 4, dtype=torch.float64)
    layer.edit(gauges)(net)
    expected = a_out * recorded.net(x).detach().numpy() + b_out
    assert np.allclose(net(x * torch.from_numpy(a_in) + torch.from_numpy(b_in)).detach().numpy(), expected)


def test_tied_weights_part():
    def tied():
        made = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
        made[2].weight = made[0].weight
        return made

    recorded = Recorded(case(lambda s, x: s.layer(x), IMAGE, layer=tied), [(1,)])
    first = next(each for each in recorded.reading.layers.values() if each.weight.path == "layer.0")
    net = copy.deepcopy(recorded.net)
    assert net.layer[0].weight is net.layer[2].weight
    first.edit(gauges_for(first, recorded.system.num_labels)[0])(net)
    assert net.layer[0].weight is not net.layer[2].weight
    assert torch.equal(net.layer[2].weight, recorded.net.layer[2].weight)
    assert not torch.equal(net.layer[0].weight, recorded.net.layer[0].weight)


@pytest.mark.parametrize(("size", "overflows"), [(10.0, False), (1e5, True)])
@pytest.mark.parametrize("what", ["out", "shift", "in", "bias"])
def test_overflow_is_foreseen(size, overflows, what):
    recorded, layer = read(lambda: nn.Conv2d(4, 6, 1), IMAGE)
    scales = torch.ones(recorded.system.num_labels, dtype=torch.float64)
    shifts = torch.zeros_like(scales)
    if what == "out":
        scales[layer.outputs.tolist()] = 10 * size
    elif what == "bias":
        recorded.net.layer.bias.data.fill_(5e3)
        scales[layer.outputs.tolist()] = size / 1e3
    elif what == "in":
        scales[layer.inputs.tolist()] = 0.1 / size
    else:
        shifts[layer.inputs.tolist()] = 10 * size
    edit = layer.edit(Gauges(scales, shifts))
    net = copy.deepcopy(recorded.net).half()
    assert edit.overflows(net) is overflows
    edit(net)
    assert all(bool(p.isfinite().all()) for p in net.parameters()) is not overflows
    assert not edit.overflows(copy.deepcopy(recorded.net))
