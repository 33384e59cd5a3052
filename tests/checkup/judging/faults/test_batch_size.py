"""Micro-batches are judged by what their values are worth."""

import pytest
import torch
from torch import nn

from checkup.grown import evidence, faults, grow, images
from checkup.judging.observed import norm, observation
from convscope import checkup
from convscope.checkup.judging.faults.batch_size import micro_batch


def _pooled_net():
    """A batch norm on maps, and one on features after global pooling."""
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 16, bias=False), nn.BatchNorm1d(16), nn.Linear(16, 3),
    )  # fmt: skip
    return grow(net, batches=400, make=lambda: images(32))


def _pixels(number):
    """Images without any common part: every position is worth one value."""
    return torch.randn(number, 3, 9, 8)


@pytest.mark.parametrize("batch_size", [2, 4, 8])
def test_few_features_per_batch_are_found_and_large_maps_are_not(batch_size):
    found = checkup(_pooled_net(), list(images(128).split(batch_size)))
    assert faults(found) == [("micro-batch", "6#1")]
    (finding,) = found.findings
    assert evidence(finding, "effective values per channel") == pytest.approx(batch_size, rel=0.25)
    assert evidence(finding, "values per channel") == batch_size


def test_a_large_batch_is_healthy():
    assert faults(checkup(_pooled_net(), list(images(256).split(64)))) == []


def test_a_small_batch_of_large_independent_maps_is_healthy():
    net = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6))
    grow(net, batches=200, make=lambda: _pixels(2))
    found = checkup(net, list(_pixels(64).split(2)))
    assert faults(found) == []
    assert found.layers[0].effective_values > 50


def test_maps_whose_positions_agree_are_worth_one_value_an_image():
    net = grow(nn.Sequential(nn.BatchNorm2d(3)), batches=300, make=lambda: _flat(8))
    found = checkup(net, list(_flat(128).split(8)))
    (finding,) = (f for f in found.findings if f.fault == "micro-batch")
    assert evidence(finding, "values per channel") == 8 * 36
    assert evidence(finding, "effective values per channel") == pytest.approx(8, rel=0.35)


def _flat(number):
    return torch.randn(number, 3, 1, 1).expand(-1, -1, 6, 6) + 0.05 * torch.randn(number, 3, 6, 6)


def test_one_value_per_channel_in_the_last_batch():
    model = _pooled_net()
    found = checkup(model, list(images(65).split(32)))
    assert faults(found) == [("one-value-per-channel", "6#1")]
    assert found.findings[0].severity == "error"
    assert "drop_last=True" in found.findings[0].remedy
    with pytest.raises(ValueError, match="more than 1 value"):
        model.train()(images(1))


def test_one_image_alone():
    found = checkup(_pooled_net(), images(1))
    assert faults(found) == [("one-value-per-channel", "6#1")]
    assert "drop_last" not in found.findings[0].remedy
    assert {note.what for note in found.unchecked} >= {"micro-batch at 1#1", "redundant-bias"}


def test_frozen_layers_take_any_batch():
    model = _pooled_net().train()
    model[6].eval()
    assert faults(checkup(model, list(images(65).split(32)))) == []


@pytest.mark.parametrize(("size", "number"), [(16, 20), (24, 4), (20, 10)])
@pytest.mark.parametrize("positions", [1, 4])
def test_enough_independent_values_are_no_alarm(size, number, positions):
    """The bare threshold alarms for half of 200 samples at 16 × 20, and for 14 at 24 × 4."""
    alarms = 0
    for _ in range(200):
        batches = list(torch.randn(size * number // positions, 6, positions).split(size // positions))
        alarms += len(list(micro_batch(observation(norm(batches, 6), batches=batches))))
    assert alarms <= 1


@pytest.mark.parametrize(("size", "number"), [(2, 16), (4, 8), (8, 4), (8, 16)])
def test_too_few_independent_values_are_always_found(size, number):
    for _ in range(20):
        batches = list(torch.randn(size * number, 6).split(size))
        (finding,) = micro_batch(observation(norm(batches, 6), batches=batches))
        most = evidence(finding, "their upper bound")
        assert evidence(finding, "effective values per channel") <= most < 16


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (torch.randn(1, 3, 4), "one image"),
        (torch.ones(8, 3, 4), "constant"),
        (torch.full((8, 3, 4), torch.nan), "finite"),
        (torch.tensor([-1.0, 1.0]).expand(8, 3, 2), "the same in all"),
    ],
)
def test_why_nothing_is_known(x, reason):
    (note,) = micro_batch(observation(norm([x]), batches=[x]))
    assert reason in note.reason
