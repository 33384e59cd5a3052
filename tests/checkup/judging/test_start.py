"""Whether running statistics have left their start."""

import pytest
from torch import nn

from convscope.checkup.judging.start import has_moved, is_at_start
from convscope.checkup.measuring.describe import Roster


@pytest.mark.parametrize("which", ["running_mean", "running_var"])
def test_one_channel_is_enough(which):
    layer = nn.BatchNorm2d(5)
    norm = Roster(nn.Sequential(layer)).from_module("0")
    assert (is_at_start(norm), has_moved(norm)) == (True, False)
    getattr(layer, which)[3] += 1e-6
    norm = Roster(nn.Sequential(layer)).from_module("0")
    assert (is_at_start(norm), has_moved(norm)) == (False, True)


def test_without_statistics_neither():
    norm = Roster(nn.Sequential(nn.BatchNorm2d(5, track_running_stats=False))).from_module("0")
    assert (is_at_start(norm), has_moved(norm)) == (False, False)
