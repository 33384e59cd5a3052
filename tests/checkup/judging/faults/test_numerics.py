"""ε beside variances, and half-precision statistics."""

import copy
import math

import pytest
import torch
from torch import nn

from checkup.grown import Small, evidence, faults, grow, images, loader
from convscope import checkup

GROWN = grow(Small())


@pytest.fixture
def model():
    return copy.deepcopy(GROWN).train()


def _the(found, name):
    (finding,) = (finding for finding in found.findings if finding.fault == name)
    return finding


@pytest.mark.parametrize(("dtype", "bits"), [(torch.bfloat16, 8), (torch.float16, 11)])
def test_half_statistics_stall(model, dtype, bits):
    model.bn3.to(dtype)
    finding = _the(checkup(model), "half-statistics")
    assert finding.address == "bn3#1"
    limit = evidence(finding, "smallest relative error that is corrected")
    assert limit == pytest.approx(2**-bits / 0.1)
    # An average that is half as far off as the limit doesn't move; one that is twice as far off does.
    for distance, moves in ((0.5, False), (2.0, True)):
        value = torch.tensor(1.0, dtype=dtype)
        moved = torch.lerp(value, torch.tensor(1.0 + distance * limit, dtype=torch.float32).to(dtype), 0.1)
        assert bool(moved != value) is moves


def _scaled(model, factor):
    """conv2 makes values of this factor less, and bn2 knows it."""
    with torch.no_grad():
        model.conv2.weight.mul_(factor)
        model.bn2.running_mean.mul_(factor)
        model.bn2.running_var.mul_(factor**2)
    return model


@pytest.mark.parametrize("data", [None, "images"])
def test_a_dominant_epsilon_is_advice(model, data):
    x = None if data is None else images(64)
    found = checkup(_scaled(model, 1e-3), x)
    finding = _the(found, "dominant-epsilon")
    assert (finding.severity, finding.address) == ("advice", "bn2#1")
    inputs = []
    hook = model.bn2.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach().double()))
    model.eval()(images(64) if x is None else x)
    hook.remove()
    variance = model.bn2.running_var.double()
    measured = variance if x is None else inputs[0].transpose(0, 1).flatten(1).var(1)
    spread = (measured / (variance + 1e-5)).sqrt()
    assert evidence(finding, "standard deviation of a normalised channel") == pytest.approx(
        float(spread.min()), rel=1e-4
    )
    assert evidence(finding, "channels below 95 %") == int((spread < 0.95).sum()) == 12
    model.bn2.eps = 1e-10
    assert faults(checkup(model, x)) == []


def test_channels_with_a_constant_input_are_apart(model):
    with torch.no_grad():
        model.conv2.weight[:3] = 0
        model.bn2.running_mean[:3] = 0
        model.bn2.running_var[:3] = 1e-9
    assert "dominant-epsilon" not in dict(faults(checkup(model)))
    _scaled(model, 1e-3)
    finding = _the(checkup(model), "dominant-epsilon")
    assert evidence(finding, "channels with a constant input") == 3
    assert evidence(finding, "channels below 95 %") == 9


def test_stale_statistics_arent_epsilons_fault(model):
    model.bn2.running_var.mul_(1e-6)
    assert "dominant-epsilon" in dict(faults(checkup(model)))
    assert "dominant-epsilon" not in dict(faults(checkup(model, loader())))


@pytest.mark.parametrize("eps", [1e-3, 1e-2])
def test_an_epsilon_that_was_lost_on_the_way(model, eps):
    reference = copy.deepcopy(model)
    reference.bn2.eps = eps
    with torch.no_grad():
        for net in (model, reference):
            net.bn2.running_var[4] = 0.04
    finding = _the(checkup(model, reference=reference), "dominant-epsilon")
    assert (finding.severity, finding.address) == ("warning", "bn2#1")
    scale = math.sqrt((0.04 + eps) / (0.04 + 1e-5)) - 1
    assert evidence(finding, "scale error") == pytest.approx(scale, rel=1e-4)
    spreads = math.sqrt(0.04 / (0.04 + 1e-5)) - math.sqrt(0.04 / (0.04 + eps))
    assert evidence(finding, "difference of spreads") == pytest.approx(spreads, rel=1e-4)
    assert f"set eps={eps:g}" in finding.remedy
    model.bn2.eps = eps
    left = checkup(model, reference=reference).findings
    assert [finding.fault for finding in left if finding.severity == "warning"] == []


def test_another_epsilon_that_changes_nothing(model):
    reference = copy.deepcopy(model)
    reference.bn2.eps = 1.1e-5
    assert faults(checkup(model, reference=reference)) == []
    with torch.no_grad():  # a dead channel: its relative scale is √(ε / ε₀), and it puts out nothing
        for net in (model, reference):
            net.bn2.running_var[0] = 1e-12
    reference.bn2.eps = 1e-4
    assert "dominant-epsilon" not in dict(faults(checkup(model, reference=reference)))


def test_layers_without_statistics_have_no_epsilon_to_judge():
    assert "dominant-epsilon" not in dict(
        faults(checkup(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False))))
    )
