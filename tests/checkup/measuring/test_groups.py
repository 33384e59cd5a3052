"""Values per group, counted by hand."""

import pytest
from torch import nn

import convscope as cs
from checkup.grown import evidence
from convscope import checkup
from convscope.checkup.measuring.groups import group_calls
from convscope.checkup.observed import GroupCall
from convscope.tape import record


@pytest.mark.parametrize(
    ("layer", "groups", "values"),
    [
        (nn.GroupNorm(2, 8), 2, 4 * 35),
        (nn.GroupNorm(8, 8), 8, 35),
        (cs.norm.GroupNorm(4, 8), 4, 2 * 35),
        (nn.InstanceNorm2d(8), 8, 35),
        (nn.InstanceNorm2d(8, affine=True), 8, 35),
        (cs.norm.InstanceNorm2d(8), 8, 35),
    ],
)
def test_groups_are_counted(layer, groups, values):
    tape = record(nn.Sequential(nn.Conv2d(3, 8, 1), layer), (2, 3, 7, 5))
    assert group_calls(tape) == (GroupCall("1#1", "1", groups, values),)


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(8),
        nn.SyncBatchNorm(8),
        nn.BatchNorm2d(8, track_running_stats=False),
        cs.norm.BatchNorm2d(8),
        cs.norm.BatchNorm2d(8, track_running_stats=False),
        cs.norm.GhostBatchNorm2d(8, ghost_batch_size=2),
        cs.norm.LayerNorm((8, 7, 5)),
        nn.LayerNorm(5),
        nn.InstanceNorm2d(8, track_running_stats=True),  # by running statistics
    ],
)
def test_other_layers_have_no_groups(layer):
    assert group_calls(record(nn.Sequential(nn.Conv2d(3, 8, 1), layer), (2, 3, 7, 5))) == ()
    assert group_calls(None) == ()


@pytest.mark.parametrize(
    ("groups", "severity", "remedy"),
    [(32, "error", "num_groups=2"), (4, "advice", "num_groups=2"), (2, None, "")],
)
def test_few_values_in_a_group(groups, severity, remedy):
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.GroupNorm(groups, 32))
    found = [
        finding for finding in checkup(net, (2, 32, 6, 6)).findings if finding.fault == "one-value-per-group"
    ]
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    for finding in found:
        assert finding.address == "1#1"
        assert evidence(finding, "values per group") == 32 / groups
        assert remedy in finding.remedy
        assert finding.effect == 16 / (32 / groups)
