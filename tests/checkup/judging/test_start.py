"""Whether running statistics have left their start."""

import pytest
from torch import nn

from convscope.checkup.judging.start import has_moved, is_at_start, never_ran
from convscope.checkup.measuring.describe import Roster


@pytest.mark.parametrize("which", ["running_mean", "running_var"])
def test_one_channel_is_enough(which):
    layer = nn.BatchNorm2d(5)
    norm = Roster(nn.Sequential(layer)).from_module("0")
    assert (is_at_start(norm), has_moved(norm)) == (True, False)
    getattr(layer, which)[3] += 1e-6
    norm = Roster(nn.Sequential(layer)).from_module("0")
    assert (is_at_start(norm), has_moved(norm)) == (False, True)


@pytest.mark.parametrize("which", ["running_mean", "running_var"])
def test_a_network_never_ran_until_one_channel_of_one_layer_has_moved(which):
    net = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.BatchNorm2d(2), nn.InstanceNorm2d(2))
    net.append(nn.Sequential(nn.BatchNorm2d(5)))
    assert never_ran(net)
    getattr(net[3][0], which)[3] += 1e-6
    assert not never_ran(net)
    assert not never_ran(net[0])


def test_without_statistics_neither():
    norm = Roster(nn.Sequential(nn.BatchNorm2d(5, track_running_stats=False))).from_module("0")
    assert (is_at_start(norm), has_moved(norm)) == (False, False)
