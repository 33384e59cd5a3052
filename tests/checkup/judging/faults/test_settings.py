"""Planted settings, at static depth; and the same network without them."""

import copy

import pytest
import torch
from torch import nn

from checkup.grown import Small, evidence, faults, grow, loader
from convscope import checkup

GROWN = grow(Small())


@pytest.fixture
def model():
    return copy.deepcopy(GROWN).train()


def _the(found, name):
    (finding,) = (finding for finding in found.findings if finding.fault == name)
    return finding


def test_the_healthy_twin(model):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    assert faults(checkup(model, optimizer=optimizer)) == []
    assert faults(checkup(model, loader(), optimizer=optimizer)) == []


@pytest.mark.parametrize(("momentum", "right"), [(0.9, "0.1"), (0.99, "0.01"), (1.0, "0.1")])
def test_momentum_of_the_other_convention(model, momentum, right):
    model.bn2.momentum = momentum
    found = checkup(model)
    assert faults(found) == [("momentum-convention", "bn2#1")]
    assert f"momentum={right}," in found.findings[0].remedy
    assert evidence(found.findings[0], "batches averaged") == pytest.approx((2 - momentum) / momentum)


@pytest.mark.parametrize("momentum", [0.1, 0.01, 0.4, None])
def test_healthy_momenta(model, momentum):
    model.bn2.momentum = momentum
    model.bn2.num_batches_tracked.fill_(10_000)
    assert faults(checkup(model)) == []


def test_momentum_zero_is_no_freezing(model):
    model.bn1.momentum = 0.0
    assert faults(checkup(model)) == [("statistics-never-move", "bn1#1")]
    model.bn1.eval()
    assert faults(checkup(model)) == []


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


def test_frozen_parameters_with_moving_statistics(model):
    model.bn1.requires_grad_(False)
    assert faults(checkup(model)) == [("frozen-but-tracking", "bn1#1")]
    model.bn1.eval()  # frozen for good
    assert faults(checkup(model)) == []
    model.bn1.train()
    assert faults(checkup(model.eval())) == []  # how it trains isn't known


def test_an_optimizer_of_other_parameters(model):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model.bn2 = copy.deepcopy(model.bn2)
    found = checkup(model, optimizer=optimizer)
    assert faults(found) == [("foreign-optimizer", "bn2#1")]
    assert "bn2.weight, bn2.bias" in found.findings[0].why
    assert faults(checkup(model, optimizer=torch.optim.SGD(model.parameters(), 0.1))) == []


def test_an_optimizer_of_a_part_of_the_network_is_meant(model):
    assert faults(checkup(model, optimizer=torch.optim.SGD(model.head.parameters(), 0.1))) == []


def test_decayed_gains_are_advice(model):
    found = checkup(model, optimizer=torch.optim.AdamW(model.parameters(), weight_decay=0.05))
    assert faults(found) == [("decayed-gains", "bn1#1")]
    assert found.findings[0].severity == "advice"
    assert (evidence(found.findings[0], "layers"), evidence(found.findings[0], "weight decay")) == (3, 0.05)
    gains = [p for n, p in model.named_parameters() if "bn" in n]
    rest = [p for n, p in model.named_parameters() if "bn" not in n]
    groups = [{"params": gains, "weight_decay": 0.0}, {"params": rest}]
    assert faults(checkup(model, optimizer=torch.optim.AdamW(groups, weight_decay=0.05))) == []


def test_without_affine_or_statistics():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False, track_running_stats=False))
    assert faults(checkup(net)) == []
    assert checkup(net).layers[0].gamma_range is None
