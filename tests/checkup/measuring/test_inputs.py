"""What a layer's inputs show, against explicit computation in float64."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from checkup.grown import grow, images
from convscope.checkup.measuring.inputs import Inputs
from convscope.checkup.measuring.observe import observe_data
from convscope.checkup.measuring.population import Moments, Pool
from convscope.checkup.measuring.subject import Subject
from convscope.checkup.plan import CheckupPlan
from convscope.norm import convert


def _observe(model, data, loss=None):
    return observe_data(Subject(model, loss, None, None, CheckupPlan()), data)


def _facts(batches, eps=1e-5):
    pool, inputs = Pool(), Inputs()
    for x in batches:
        inputs.add(x, pool.add(x, x), None)
    return inputs.facts(pool.population(), eps)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3), (1, 6)])
def test_shares_are_the_variance_of_means_by_index(shape):
    batches = [torch.randn(n, *shape) * torch.rand(shape) + torch.randn(shape[-1]) for n in (7, 7, 3)]
    values = torch.cat(batches).double().numpy()
    within = values.reshape(17, shape[0], -1).transpose(1, 0, 2).reshape(shape[0], -1).var(1, ddof=1).mean()
    total = within + values.mean((0, *range(2, values.ndim))).var()
    expected = [
        values.mean(tuple(other for other in range(values.ndim) if other != axis)).var() / total
        for axis in range(1, values.ndim)
    ]
    np.testing.assert_allclose(_facts(batches).axis_shares, expected, rtol=1e-5, atol=1e-8)


def test_features_have_no_other_axis_and_constants_no_shares():
    assert _facts([torch.randn(9, 4)]).axis_shares == ()
    assert _facts([torch.ones(9, 4, 3)]).axis_shares == ()


def test_maps_of_another_size_are_left_out_of_the_means_by_index():
    first, second = torch.randn(6, 3, 5) + torch.arange(5), 4 * torch.randn(6, 3, 4)
    values = torch.cat((first.flatten(), second.flatten())).double()
    expected = first.double().mean((0, 1)).var(correction=0) / values.var()
    assert _facts([first, second]).axis_shares[1] == pytest.approx(float(expected), rel=0.05)


def test_mean_to_spread_is_that_of_the_worst_channel():
    x = torch.randn(4000, 2, dtype=torch.float64) * torch.tensor([1.0, 0.1]) + torch.tensor([3.0, 2.0])
    assert _facts([x], eps=0.0).mean_to_spread == pytest.approx(20, rel=0.05)


def test_an_operator_s_error_is_the_worst_channel_s_of_the_worst_batch():
    inputs, batch = Inputs(), Moments()
    batch.merge(10, torch.zeros(2, dtype=torch.float64), torch.tensor([10.0, 20.0], dtype=torch.float64))
    inputs.note_variance(torch.tensor([1.5, 2.5]), batch, eps=0.5)
    assert inputs.variance_error == pytest.approx(0.0, abs=1e-12)
    inputs.note_variance(torch.tensor([1.5, 2.0]), batch, eps=0.5)
    inputs.note_variance(torch.tensor([1.6, 2.5]), batch, eps=0.5)
    assert inputs.variance_error == pytest.approx(0.2)
    inputs.note_variance(torch.tensor([float("nan"), 2.5]), batch, eps=0.5)
    assert inputs.variance_error == math.inf


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_the_error_is_that_of_what_pytorch_puts_out(offset):
    """The spread of the layer's real output in training says which variance it divided by."""
    x = (images(32, (24, 20)) + offset).to(memory_format=torch.channels_last)
    net = grow(nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.ReLU()), 2, lambda: x)
    (norm,) = _observe(net, [x]).norms
    out = F.batch_norm(x, None, None, training=True).double()
    true = x.double().var((0, 2, 3), correction=0) + 1e-5
    computed = x.double().var((0, 2, 3), correction=0) / out.var((0, 2, 3), correction=0)
    expected = float((computed / true - 1).abs().max())
    assert norm.inputs.variance_error == pytest.approx(expected, rel=1e-2, abs=1e-5)
    assert (norm.inputs.variance_error > 0.1) == (offset > 0)


def test_layers_with_sums_of_their_own_are_not_measured_with_pytorchs():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    assert _observe(net, images(8)).norms[0].inputs.variance_error < 1e-5
    convert(net, "batch")
    assert _observe(net, images(8)).norms[0].inputs.variance_error is None


def test_frozen_layers_normalise_by_no_batch():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4)
    ).train()
    net[1].eval()
    frozen, training = _observe(net, images(8)).norms
    assert frozen.inputs.variance_error is None
    assert training.inputs.variance_error is not None


def test_neighbours_of_an_axis():
    ramp, noise = torch.linspace(-3, 3, 40), torch.randn(40) * 3
    x = torch.randn(64, 40, 40) + noise[:, None] + ramp
    channels, positions = _facts([x[:30], x[30:]]).axis_roughness
    means = x.double().mean((0, 2)).numpy()
    assert channels == pytest.approx(np.mean(np.diff(means) ** 2) / np.var(means), rel=1e-4)
    assert channels > 1.2
    assert positions < 0.1
