"""Micro-batches are judged by what their values are worth."""

import pytest
import torch
from torch import nn

from checkup.grown import evidence, faults, grow, images
from convscope import checkup


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
