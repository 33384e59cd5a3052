"""A loss that compares samples, behind batch norm: advice, or a warning where it shows in the loss."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from checkup.grown import faults
from checkup.judging.observed import norm, observation
from convscope import checkup
from convscope.checkup.judging.faults.leaking import leaking_batch
from convscope.checkup.observed import Gap
from convscope.norm import convert, recalibrate


def _judged(coupling, gap=None, **changes):
    return list(leaking_batch(observation(norm(**changes), loss_coupling=coupling, gap=gap)))


@pytest.mark.parametrize("coupling", [None, 0.0, 1e-4])
def test_sums_over_samples_are_silent(coupling):
    assert _judged(coupling, Gap(2.0, 1.0, 0.01)) == []


def test_frozen_batch_norms_tell_nothing():
    assert _judged(0.5, frozen=True) == []


@pytest.mark.parametrize("gap", [None, Gap(2.0, 1.0, None), Gap(2.0, 1.0, 0.3), Gap(1.02, 1.0, 0.001)])
def test_without_a_sure_gap_it_is_advice(gap):
    (finding,) = _judged(0.5, gap)
    assert (finding.severity, finding.effect) == ("advice", 1.0)


def test_a_sure_gap_makes_it_a_warning():
    (finding,) = _judged(0.5, Gap(2.0, 1.0, 0.05))
    assert finding.severity == "warning"
    assert finding.effect == pytest.approx((1 - 0.2) / 0.05)
    assert "'group'" in finding.remedy


def test_unless_wrong_statistics_explain_it():
    batches = list((torch.randn(256, 3) + 9).split(32))
    off = norm(batches)
    (finding,) = leaking_batch(observation(off, loss_coupling=0.5, gap=Gap(2.0, 1.0, 0.05)))
    assert finding.severity == "advice"
    right = replace(off, running_mean=off.population.mean, running_variance=off.population.variance)
    (finding,) = leaking_batch(observation(right, loss_coupling=0.5, gap=Gap(2.0, 1.0, 0.05)))
    assert finding.severity == "warning"


def _tell_apart(outputs, _):
    one, other = F.normalize(outputs, dim=1).chunk(2)
    return F.cross_entropy(one @ other.T / 0.1, torch.arange(len(one)))


def test_batches_of_one_scene_leak_in_a_real_network():
    """What the pictures of a batch have in common is taken away in training only."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(12, 16, bias=False), nn.BatchNorm1d(16))
    data = []
    for _ in range(24):
        pictures = torch.randn(16, 12) + 3 * torch.randn(1, 12)
        views = torch.cat((pictures, pictures + 0.3 * torch.randn(16, 12)))
        data.append((views, torch.zeros(32).long()))
    recalibrate(net, data)
    found = {finding.fault: finding for finding in checkup(net.train(), data, loss=_tell_apart).findings}
    assert found["leaking-batch"].severity == "warning"
    assert found["leaking-batch"].address == "1#1"
    convert(net, "group")
    assert "leaking-batch" not in dict(faults(checkup(net, data, loss=_tell_apart)))
