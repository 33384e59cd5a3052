"""Random small networks equal explicit arithmetic: parameters, forward, both kinds of gradients, rows."""

from math import prod

import hypothesis.strategies as st
import torch
from hypothesis import given, settings
from torch import nn

from convscope.cost import cost

CONVOLUTIONS = {
    (1, False): nn.Conv1d, (2, False): nn.Conv2d, (3, False): nn.Conv3d,
    (1, True): nn.ConvTranspose1d, (2, True): nn.ConvTranspose2d, (3, True): nn.ConvTranspose3d,
}  # fmt: skip
CHANNELS = 4

layer = st.fixed_dictionaries(
    {
        "groups": st.sampled_from([1, 2, 4]),
        "widen": st.sampled_from([1, 2]),
        "kernel": st.lists(st.integers(1, 3), min_size=3, max_size=3),
        "stride": st.integers(1, 2),
        "padding": st.integers(0, 1),
        "dilation": st.integers(1, 2),
        "transposed": st.booleans(),
        "bias": st.booleans(),
        "frozen": st.booleans(),
        "calls": st.integers(1, 2),  # of one module: its weights count once, its work every time
        "activation": st.sampled_from(["none", "relu", "relu in place"]),
    }
)


class Network(nn.Module):
    """Convolutions, each maybe called twice and maybe followed by a ReLU; then a head."""

    def __init__(self, steps, head, gram):
        super().__init__()
        self.steps, self.gram = steps, gram
        self.layers = nn.ModuleList(module for module, _, _ in steps)
        self.head = head

    def forward(self, x):
        for module, calls, activation in self.steps:
            for _ in range(calls):
                x = module(x)
                if activation != "none":
                    x = nn.functional.relu(x, inplace=activation == "relu in place")
        x = x.flatten(2)
        x = x @ x.transpose(1, 2) if self.gram else x
        return self.head(x.flatten(1))


class Expected:
    """The arithmetic of a network, written down layer by layer while it is put together."""

    def __init__(self, batch, size):
        self.batch, self.size, self.channels = batch, list(size), CHANNELS
        self.macs = self.to_input = self.to_weight = self.params = 0
        self.needs_gradient = False

    def call(self, layer, out, size):
        """One call of a convolution: every output element (input element, transposed) meets a kernel."""
        positions, width = (self.size, self.channels) if layer["transposed"] else (size, out)
        fan = (out if layer["transposed"] else self.channels) // layer["groups"]
        macs = self.batch * width * prod(positions) * fan * prod(layer["kernel"][: len(size)])
        self.add(macs, to_input=self.needs_gradient, to_weight=not layer["frozen"])
        self.needs_gradient |= not layer["frozen"]
        self.size, self.channels = size, out

    def add(self, macs, to_input, to_weight):
        self.macs += macs
        self.to_input += macs * to_input
        self.to_weight += macs * to_weight


def _size(layer, size):
    """What a convolution makes of a map, or None if it doesn't fit or grows too large."""
    reach = [layer["dilation"] * (k - 1) + 1 for k in layer["kernel"]]
    padding, stride = layer["padding"], layer["stride"]
    if layer["transposed"]:
        made = [(side - 1) * stride - 2 * padding + r for side, r in zip(size, reach)]
    else:
        made = [(side + 2 * padding - r) // stride + 1 for side, r in zip(size, reach)]
    fits = all(side + 2 * padding >= r for side, r in zip(size, reach)) or layer["transposed"]
    return made if fits and min(made) >= 1 and max(made) <= 20 else None


def _add(layer, expected, steps):
    """Append a convolution to a network, called as often as its map allows, and what it costs."""
    dims, channels = len(expected.size), expected.channels
    # A module called twice keeps its channels.
    out = channels if layer["calls"] == 2 else CHANNELS * layer["widen"]
    if _size(layer, expected.size) is None:
        return
    module = CONVOLUTIONS[dims, layer["transposed"]](
        channels, out, tuple(layer["kernel"][:dims]), stride=layer["stride"], padding=layer["padding"],
        dilation=layer["dilation"], groups=layer["groups"], bias=layer["bias"],
    ).requires_grad_(not layer["frozen"])  # fmt: skip
    calls = 0
    while calls < layer["calls"] and (size := _size(layer, expected.size)) is not None:
        expected.call(layer, out, size)
        calls += 1
    expected.params += out * channels // layer["groups"] * prod(layer["kernel"][:dims]) + out * layer["bias"]
    steps.append((module, calls, layer["activation"]))


@settings(max_examples=60, deadline=None)
@given(
    layers=st.lists(layer, max_size=4),
    batch=st.integers(1, 3),
    size=st.lists(st.integers(4, 9), min_size=1, max_size=3),
    gram=st.booleans(),
)
def test_random_networks_equal_explicit_arithmetic(layers, batch, size, gram):
    expected, steps = Expected(batch, size), []
    for one in layers:
        _add(one, expected, steps)
    features = expected.channels * prod(expected.size)
    if gram:
        macs = batch * expected.channels**2 * prod(expected.size)
        expected.add(macs, to_input=2 * expected.needs_gradient, to_weight=0)
        features = expected.channels**2
    expected.add(batch * features * 3, to_input=expected.needs_gradient, to_weight=True)
    expected.params += 3 * features + 3
    net = Network(steps, nn.Linear(features, 3), gram)

    found = cost(net, (batch, CHANNELS, *size))

    totals = found.totals
    assert totals.params == expected.params == sum(p.numel() for p in net.parameters())
    assert totals.macs == expected.macs
    assert totals.forward_flops == 2 * expected.macs
    assert totals.backward_input_flops == 2 * expected.to_input
    assert totals.backward_weight_flops == 2 * expected.to_weight
    assert totals.recompute_flops == 0
    assert found.uncounted == ()
    for field in ("macs", "forward_flops", "backward_input_flops", "backward_weight_flops", "params"):
        assert sum(getattr(row, field) for row in found.rows) == getattr(totals, field), field
    calls = [row for row in found.rows if row.op in ("convolution", "transposed_convolution")]
    assert len(calls) == sum(times for _, times, _ in steps)


@settings(max_examples=20, deadline=None)
@given(
    first=st.lists(st.integers(1, 5), min_size=1, max_size=2), rows=st.integers(1, 4), width=st.integers(1, 6)
)
def test_products_with_any_number_of_axes_equal_explicit_arithmetic(first, rows, width):
    class Products(nn.Module):
        """(…, rows, 5) times a bare weight, then a linear layer."""

        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.ones(rows, 5))
            self.weight = nn.Parameter(torch.ones(5, width))
            self.linear = nn.Linear(width, 2, bias=False)

        def forward(self, x):
            return self.linear((x + self.table) @ self.weight).flatten(1)

    totals = cost(Products(), (*first, rows, 5)).totals
    product, linear = prod(first) * rows * 5 * width, prod(first) * rows * width * 2
    assert totals.macs == product + linear
    assert totals.backward_input_flops == totals.backward_weight_flops == 2 * (product + linear)
    assert totals.params == 5 * (rows + width) + 2 * width
