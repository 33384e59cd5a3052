"""The starting values' weight against batch norms that were really run."""

import pytest
import torch
from torch import nn

from convscope.checkup.judging.age import starting_share, starting_weight, without_start
from convscope.checkup.measuring.describe import Roster


def _call(layer):
    return Roster(nn.Sequential(layer)).from_module("0")


@pytest.mark.parametrize(("momentum", "batches"), [(0.1, 1), (0.1, 43), (0.01, 44), (0.5, 3)])
def test_weight_of_the_start_is_that_of_a_run_on_zeros(momentum, batches):
    layer = nn.BatchNorm2d(3, momentum=momentum).double()
    for _ in range(batches):
        layer(torch.zeros(4, 3, 2, 2, dtype=torch.float64))
    # On constant inputs nothing but the starting variance 1 is in the running variance.
    assert starting_weight(_call(layer)) == pytest.approx(float(layer.running_var[0]))
    assert starting_share(_call(layer)).tolist() == pytest.approx([1, 1, 1])


def test_without_its_start_an_average_is_right_from_the_first_batch():
    layer = nn.BatchNorm2d(3).double()
    x = torch.randn(16, 3, 4, 4, dtype=torch.float64) * 0.01 + 5
    for _ in range(7):
        layer(x)
    grown = without_start(_call(layer))
    assert torch.allclose(grown.running_mean, x.mean((0, 2, 3)))
    assert torch.allclose(grown.running_variance, x.var((0, 2, 3)))


def test_unknown_ages():
    fresh, loaded, other = nn.BatchNorm2d(2), nn.BatchNorm2d(2), nn.BatchNorm2d(2, momentum=0.01)
    assert starting_weight(_call(fresh)) == 1
    assert without_start(_call(fresh)) is None
    loaded.running_mean.fill_(0.5)
    assert starting_weight(_call(loaded)) is None
    assert starting_weight(_call(nn.BatchNorm2d(2, track_running_stats=False))) is None
    other.num_batches_tracked.fill_(3)
    other.running_var.fill_(0.01)  # 97 % of the start left would be at least 0.97
    assert starting_weight(_call(other)) is None
    assert without_start(_call(other)) is None


def test_cumulative_averages_forget_their_start_at_once():
    layer = nn.BatchNorm2d(2, momentum=None)
    layer(torch.randn(4, 2, 3, 3))
    assert starting_weight(_call(layer)) == 0
