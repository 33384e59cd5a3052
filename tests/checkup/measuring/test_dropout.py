"""Dropout's effect on variances: against the formula for independent values, and against the data flow."""

import math

import pytest
import torch
from torch import nn

from checkup.grown import images
from convscope.checkup.measuring.batches import Batch
from convscope.checkup.measuring.bias import training_step
from convscope.checkup.measuring.dropout import dropout_shifts, dropout_sources, whole_spreads
from convscope.checkup.measuring.observe import observe_data
from convscope.checkup.measuring.subject import Subject
from convscope.checkup.plan import CheckupPlan


def _shifts(net, x):
    batch = Batch((x,), {}, None, len(x))
    step = training_step(net, batch)
    return dropout_shifts(dropout_sources(net, batch, step), step.spreads, whole_spreads(net, batch, step))


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
def test_the_ratio_is_that_of_dropout_s_formula(p):
    """Var(x m / (1 − p)) = (σ² + μ²) / (1 − p) − μ², of values that are normalised as they are."""
    net = nn.Sequential(nn.Dropout(p), nn.BatchNorm2d(4)).train()
    x = torch.randn(32, 4, 20, 20) + 1.5
    shift = _shifts(net, x)["1#1:batch_norm.1"]
    expected = math.log((1 + 1.5**2) / (1 - p) - 1.5**2)
    assert shift.sources == ("0#1",)
    assert shift.log_ratio == pytest.approx(expected, abs=5 * shift.error)
    assert shift.error < 0.05
    assert shift.log_ratio > 10 * shift.error


def test_the_standard_error_is_the_scatter_over_draws():
    net = nn.Sequential(nn.Dropout(0.3), nn.Linear(30, 40), nn.BatchNorm1d(40)).train()
    found = [_shifts(net, torch.randn(32, 30) + 1)["2#1:batch_norm.1"] for _ in range(40)]
    scatter = torch.tensor([shift.log_ratio for shift in found]).std()
    usual = torch.tensor([shift.error for shift in found]).median()
    assert float(usual / scatter) == pytest.approx(1, abs=0.5)


class _Branches(nn.Module):
    """Dropout in one branch, a batch norm behind it, and one that reads a batch norm alone."""

    def __init__(self):
        super().__init__()
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(3) for _ in range(3))
        self.conv, self.drop = nn.Conv2d(3, 3, 1), nn.Dropout2d(0.4)

    def forward(self, x):
        x = self.bn1(x)
        y = self.bn2(self.conv(x + self.drop(torch.relu(x) + 1)))
        return self.bn3(self.conv(y))


def test_sources_are_those_without_a_batch_norm_between():
    found = _shifts(_Branches().train(), images(32))
    assert {address: shift.sources for address, shift in found.items()} == {"bn2#1:batch_norm.1": ("drop#1",)}


class _Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.bn(nn.functional.dropout(x + 2, 0.3, self.training))


def test_dropout_as_a_function_is_seen_too():
    (shift,) = _shifts(_Functional().train(), images(32)).values()
    assert shift.sources == ("self#1",)
    assert shift.log_ratio > 0.3


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5)),
        nn.Sequential(nn.Dropout(0.0), nn.BatchNorm2d(3)),
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)),
    ],
)
def test_nothing_is_dropped_before(net):
    assert _shifts(net.train(), images(8)) == {}


def test_frozen_batch_norms_learn_nothing():
    net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(3)).train()
    net[1].eval()
    assert _shifts(net, images(8)) == {}


def test_in_a_check_up_the_model_and_the_generators_come_back():
    net = nn.Sequential(
        nn.Dropout(0.5), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2)
    )
    net.train()(images(2))
    x = images(16)
    state, rng = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    (norm,) = observe_data(Subject(net, None, None, None, CheckupPlan()), x).norms
    assert norm.inputs.dropout.sources == ("0#1",)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(module.training for module in net.modules())
