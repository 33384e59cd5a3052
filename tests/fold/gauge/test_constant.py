"""Channels whose gamma is 0: layers behind them take the constants in, or the batch norm stays.

Oracle: outputs in float64, and which batch norms still run. Where one must stay whole, what is in the way is
named beside the network.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.fold import fold
from fold.gauge.streams import batch_norms_run, norms, stream
from fold.nets import Functional

SHAPE = (2, 3, 8, 7)


def bn(channels=4):
    return nn.BatchNorm2d(channels)


def one(inputs=4, outputs=5, **options):
    return nn.Conv2d(inputs, outputs, 1, **options)


def three(inputs=4, outputs=5, **options):
    return nn.Conv2d(inputs, outputs, 3, **options)


def net(forward, **more):
    return Functional(forward, stem=nn.Conv2d(3, 4, 1), bn=bn(), **more)


def visible(s, x):
    """What the batch norm reads is an output too, so that nothing goes back."""
    y = s.stem(x)
    return y, s.bn(y)


def behind(forward, **more):
    """A network of what happens behind the batch norm."""

    def run(s, x):
        before, y = visible(s, x)
        made = forward(s, y)
        return (before, *made) if isinstance(made, tuple) else (before, made)

    return lambda: net(run, **more)


ANY = {
    "a convolution": behind(lambda s, y: s.a(y), a=three()),
    "groups": behind(lambda s, y: s.a(y), a=three(4, 6, groups=2)),
    "a transposed one of 1 × 1": behind(lambda s, y: s.a(y), a=nn.ConvTranspose2d(4, 5, 1)),
    "without a bias": behind(lambda s, y: s.a(y), a=three(bias=False)),
    "two layers": behind(lambda s, y: s.a(y) + s.b(y[:, :, 1:-1, 1:-1]), a=three(), b=one()),
    "a part of the channels": behind(lambda s, y: s.a(y[:, 1:3]), a=three(2)),
    "a mean": behind(lambda s, y: s.a(y.mean((2, 3))), a=nn.Linear(4, 3)),
    "a pool": behind(lambda s, y: s.a(F.avg_pool2d(y, 2)), a=three()),
    "pads by itself": behind(lambda s, y: s.a(F.pad(y, (1, 1, 1, 1), "reflect")), a=three()),
    "a concatenation": behind(lambda s, y: s.a(torch.cat([y, s.b(y)], 1)), a=one(9), b=one()),
    "a layer that another batch norm follows": behind(lambda s, y: s.c(s.a(y)), a=three(), c=bn(5)),
    "an input of the network": lambda: Functional(lambda s, x: s.a(s.bn(x)), bn=bn(3), a=three(3)),
    "an activation before": lambda: net(lambda s, x: s.a(s.bn(F.silu(s.stem(x)))), a=three()),
    "a linear layer": lambda: Functional(
        lambda s, x: s.a(s.bn(x.flatten(1))), bn=nn.BatchNorm1d(168), a=nn.Linear(168, 3)
    ),
    "a function": lambda: Functional(
        lambda s, x: s.a(F.batch_norm(x, s.bn.running_mean, s.bn.running_var, s.bn.weight, s.bn.bias)),
        bn=bn(3),
        a=three(3),
    ),
}
"""Behind the batch norm any constant goes into layers."""

ZERO = {
    "zeros around": behind(lambda s, y: s.a(y), a=three(padding=1)),
    "a rectifier": behind(lambda s, y: s.a(F.relu(y)), a=three()),
    "a leaky one": behind(lambda s, y: s.a(F.leaky_relu(y, 0.1)), a=three()),
    "a transposed convolution": behind(lambda s, y: s.a(y), a=nn.ConvTranspose2d(4, 5, 3)),
    "zeros in windows": behind(lambda s, y: s.a(F.avg_pool2d(y, 3, 1, 1)), a=three()),
    "a module that pads": behind(lambda s, y: s.a(s.p(y)), p=nn.ZeroPad2d(1), a=three()),
}
"""Behind the batch norm a constant goes into layers if it is 0."""

NONE = {
    "an output": behind(lambda s, y: (s.a(y), y), a=three()),
    "an activation": behind(lambda s, y: s.a(y.sigmoid()), a=three()),
    "an addition": behind(lambda s, y: s.a(y + s.b(y)), a=three(), b=one(4, 4)),
    "a constant": behind(lambda s, y: s.a(y * 2 + 1), a=three()),
    "a sum": behind(lambda s, y: s.a(y.sum((2, 3))), a=nn.Linear(4, 3)),
    "where a maximum is": behind(lambda s, y: F.max_pool2d(y, 2, return_indices=True)),
    "a layer behind where a maximum is": behind(
        lambda s, y: (lambda v, where: (s.a(v), where))(*F.max_pool2d(y, 2, return_indices=True)), a=three()
    ),
    "a gate": behind(lambda s, y: s.a(y * s.b(y).sigmoid()), a=three(), b=one(4, 1)),
    "another batch norm": behind(lambda s, y: s.a(s.c(y)), a=three(), c=bn()),
    "a layer that reads other values too": behind(lambda s, y: s.a(y) + s.a(y.sigmoid()), a=three()),
    "a weight that is computed": behind(
        lambda s, y: s.a(y), a=nn.utils.parametrizations.weight_norm(three())
    ),
}
"""Behind the batch norm something needs the constant as it is."""


def made(nets, name, randomised, betas):
    model = randomised(nets[name]()).double()
    model.bn.weight.data.abs_()
    model.bn.weight.data[1] = 0
    if betas is None:
        model.bn.bias.data.zero_()
        model.bn.running_mean.zero_()  # so that no channel is shifted
    else:
        model.bn.bias.data[1] = betas
    return model


@pytest.mark.parametrize("beta", [0.0, 0.7])
@pytest.mark.parametrize("name", ANY)
def test_layers_take_any_constant_in(name, beta, randomised, relative_error):
    model = made(ANY, name, randomised, beta)
    folded = fold(model, SHAPE)
    assert {entry.verdict for entry in folded.ledger.entries} == {"folded"}
    assert all(entry.into for entry in folded.ledger.entries)
    assert batch_norms_run(folded.model, SHAPE) == 0
    assert relative_error(model, folded.model, *SHAPE) < 1e-12


@pytest.mark.parametrize("name", ZERO)
def test_layers_take_zero_in(name, randomised, relative_error):
    model = made(ZERO, name, randomised, None)
    folded = fold(model, SHAPE)
    assert [entry.verdict for entry in folded.ledger.entries] == ["folded"]
    assert batch_norms_run(folded.model, SHAPE) == 0
    assert relative_error(model, folded.model, *SHAPE) < 1e-12


@pytest.mark.parametrize("name", ZERO)
def test_other_constants_stay(name, randomised, relative_error):
    model = made(ZERO, name, randomised, None)
    model.bn.bias.data[1] = 0.7
    folded = fold(model, SHAPE)
    (entry,) = folded.ledger.entries
    assert entry.verdict == "kept"
    assert "gamma is 0 in 1 of 4 channels" in entry.reason
    assert "taken back" not in entry.reason
    assert relative_error(model, folded.model, *SHAPE) < 1e-12


@pytest.mark.parametrize("beta", [None, 0.7])
@pytest.mark.parametrize("name", NONE)
def test_constants_that_are_needed_stay(name, beta, randomised, relative_error):
    model = made(NONE, name, randomised, beta)
    folded = fold(model, SHAPE)
    entry = folded.ledger.entries[0]
    assert entry.verdict == "kept"
    assert "taken back" not in entry.reason
    assert "gamma is 0 in 1 of 4 channels" in entry.reason or "is an output" in entry.reason
    assert relative_error(model, folded.model, *SHAPE) < 1e-12


@pytest.mark.parametrize("border", ["map", "pad"])
@pytest.mark.parametrize("name", ["zeros around", "a module that pads"])
def test_borders_of_other_constants(name, border, randomised, relative_error):
    """A bias for each position knows where the constant ends; a number to pad with doesn't."""
    model = made(ZERO, name, randomised, 0.7)
    folded = fold(model, SHAPE, border=border)
    (entry,) = folded.ledger.entries
    assert entry.verdict == ("folded" if (name, border) == ("zeros around", "map") else "kept")
    assert "taken back" not in entry.reason
    assert relative_error(model, folded.model, *SHAPE) < 1e-12


@pytest.mark.parametrize("border", ["map", "pad"])
@pytest.mark.parametrize("name", ["zeros around", "a module that pads"])
def test_borders_of_zero(name, border, randomised, relative_error):
    model = made(ZERO, name, randomised, None)
    model.bn.bias.data[2] = 0.7
    folded = fold(model, SHAPE, border=border)
    assert [entry.verdict for entry in folded.ledger.entries] == ["folded"]
    assert relative_error(model, folded.model, *SHAPE) < 1e-12


def test_a_pruned_stream_folds_whole(randomised, relative_error):
    """Sparsity training leaves channels with γ = β = 0 in every batch norm of a pre-activation network."""
    model = randomised(stream(3)).double()
    for place, norm in enumerate(norms(model)):
        norm.weight.data.abs_()
        norm.weight.data[place], norm.bias.data[place] = 0, 0
    folded = fold(model, SHAPE)
    assert {entry.verdict for entry in folded.ledger.entries} == {"folded"}
    assert relative_error(model, folded.model, *SHAPE) < 1e-12


def test_what_a_constant_was_doesnt_matter(randomised):
    """The layer behind has weights of 0 for the channel, so that nothing of it is left in the outputs."""
    model = made(ANY, "an input of the network", randomised, 0.7)
    x = torch.randn(SHAPE, dtype=torch.float64)
    folded = fold(model, SHAPE).model
    assert (folded.a.weight[:, 1] == 0).all()
    assert (folded.a.weight[:, [0, 2]] != 0).all()
    one = folded(x)
    x[:, 1] = 1e9
    assert torch.equal(one, folded(x))
