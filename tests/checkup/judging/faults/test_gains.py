"""Planted dead channels; gains that are small for good reasons are left alone."""

import pytest
import torch
from torch import nn

from checkup.grown import Small, evidence, faults, grow, images, loader
from convscope import checkup


def _plant(bn, channels, gain=1e-6, offset=-0.1):
    with torch.no_grad():
        bn.weight[channels] = gain
        bn.bias[channels] = offset


@pytest.mark.parametrize("layer", ["bn1", "bn2"])
@pytest.mark.parametrize("data", [(2, 3, 11, 9), "loader"])
def test_dead_gains_are_found(layer, data):
    model = grow(Small())
    _plant(model.get_submodule(layer), [2, 5])
    found = checkup(model, loader() if data == "loader" else data)
    (finding,) = (f for f in found.findings if f.fault == "dead-gamma")
    assert finding.address == f"{layer}#1"
    assert (evidence(finding, "dead channels"), evidence(finding, "first dead channel")) == (2, 2)
    assert {row.path: row.dead_channels for row in found.layers}[layer] == 2


def test_a_dead_channel_is_always_zero():
    model = grow(Small())
    _plant(model.bn1, [4])
    assert [f for f, _ in faults(checkup(model, loader()))] == ["dead-gamma"]
    outputs = torch.relu(model.bn1(model.conv1(images(64))))
    assert not outputs[:, 4].any()
    assert outputs.amax((0, 2, 3)).count_nonzero() == 7


@pytest.mark.parametrize(
    ("layer", "gain", "offset"),
    [
        ("bn3", 1e-6, -0.1),  # a sum reads it: not zero after the ReLU
        ("bn1", 1e-6, 0.1),  # a constant, but not zero
        ("bn1", 0.3, -0.1),  # small, but it reaches above zero
    ],
)
def test_healthy_gains(layer, gain, offset):
    model = grow(Small())
    _plant(model.get_submodule(layer), [2], gain, offset)
    grow(model, batches=60)
    _plant(model.get_submodule(layer), [2], gain, offset)
    with torch.no_grad():
        for _ in range(100):
            model(images(16))
    assert faults(checkup(model, loader())) == []


def test_zero_initialised_residual_gains_are_meant():
    model = Small()
    nn.init.zeros_(model.bn3.weight)
    with torch.no_grad():
        for _ in range(120):
            model(images(16))
    assert faults(checkup(model, loader(192))) == []


def test_without_the_data_flow_it_is_unknown():
    model = grow(Small(), batches=60)
    _plant(model.bn1, [2])
    found = checkup(model)
    assert faults(found) == []
    assert {note.what for note in found.unchecked} >= {"dead-gamma at bn1#1"}


def test_channels_that_only_data_shows_dead():
    model = grow(Small())
    with torch.no_grad():
        model.bn1.bias[6] = -60.0
        for _ in range(100):
            model(images(16))
    found = checkup(model, loader(128))
    (finding,) = (f for f in found.findings if f.fault == "dead-channel")
    assert (finding.address, finding.severity) == ("bn1#1", "advice")
    assert evidence(finding, "dead channels") == 1
    assert evidence(finding, "upper bound on active images") == pytest.approx(3 / 128)
    assert "dead-channel" not in dict(faults(checkup(model, loader(64))))


@pytest.mark.parametrize("gain", [0.0, 1e-6])
@pytest.mark.parametrize("number", [1, 5, 6, 9, 10])
def test_however_many_are_dead(number, gain):
    model = nn.Sequential(nn.Conv2d(3, 10, 3), nn.BatchNorm2d(10), nn.ReLU())
    _plant(model[1], slice(0, number), gain, -1.0)
    model[1].num_batches_tracked.fill_(100)
    found = checkup(model, (2, 3, 8, 7))
    (finding,) = (f for f in found.findings if f.fault == "dead-gamma")
    assert finding.severity == "warning"
    assert evidence(finding, "dead channels") == number == found.layers[0].dead_channels
    assert ("all 10 channels" in finding.why) == (number == 10)
    assert evidence(finding, "usual gain of the layer") == pytest.approx(gain if number == 10 else 1.0)


def test_one_large_gain_makes_no_others_small():
    model = nn.Sequential(nn.Conv2d(3, 10, 3), nn.BatchNorm2d(10), nn.ReLU())
    with torch.no_grad():
        model[1].weight.fill_(0.04)
        model[1].weight[0] = 30.0
        model[1].bias.fill_(-0.2)
    assert checkup(model, (2, 3, 8, 7)).layers[0].dead_channels == 0
