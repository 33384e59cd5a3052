import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.norm import (
    KINDS,
    BatchNorm2d,
    GroupNorm,
    InstanceNorm2d,
    LocalResponseNorm,
    normalisation,
)
from convscope.norm.choose import num_groups
from convscope.norm.layers.ghost import GhostBatchNorm2d
from convscope.norm.layers.renorm import BatchRenorm2d
from convscope.norm.layers.sync import SyncBatchNorm

TYPES = {
    "none": nn.Identity,
    "lrn": LocalResponseNorm,
    "batch": BatchNorm2d,
    "layer": GroupNorm,
    "instance": InstanceNorm2d,
    "group": GroupNorm,
    "renorm": BatchRenorm2d,
    "ghost": GhostBatchNorm2d,
    "sync": SyncBatchNorm,
}


def test_every_kind_is_covered_here():
    assert set(TYPES) == set(KINDS)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("channels", [3, 24, 96])
def test_kinds(kind, channels):
    layer = normalisation(kind, channels)
    x = torch.randn(2, channels, 5, 3)
    assert type(layer) is TYPES[kind]
    assert layer(x).shape == x.shape
    learned = sum(parameter.numel() for parameter in layer.parameters())
    assert learned == (0 if kind in ("none", "lrn") else 2 * channels)


def test_none_passes_maps_through():
    x = torch.randn(2, 3, 4, 4)
    assert normalisation(None, 3)(x) is x


@pytest.mark.parametrize("kind", ["batch", "renorm", "ghost", "sync"])
def test_kinds_that_are_batch_norm_for_a_small_batch_in_one_process_at_first(kind):
    x = torch.randn(4, 3, 5, 5)
    assert torch.allclose(normalisation(kind, 3)(x), nn.BatchNorm2d(3)(x), atol=1e-5)


def test_layer_norm_of_maps_is_over_channels_and_space():
    y = normalisation("layer", 4)(torch.randn(3, 4, 5, 5) + 7)
    assert y.mean((1, 2, 3)).abs().max() < 1e-5


def test_group_numbers():
    for channels in range(1, 300):
        groups = num_groups(channels)
        assert channels % groups == 0
        assert 1 <= groups <= 32
        assert groups == 1 or channels // groups >= 2
    assert [num_groups(channels) for channels in (64, 96, 256, 384)] == [32] * 4  # as published


@pytest.mark.parametrize(
    ("kind", "near"), [("bacth", "batch"), ("BATCH", "batch"), ("grup", "group"), ("renrom", "renorm")]
)
def test_an_unknown_kind_is_answered_with_the_nearest(kind, near):
    with pytest.raises(ConvscopeError, match=f"try '{near}'"):
        normalisation(kind, 3)


def test_an_unknown_kind_with_nothing_near():
    with pytest.raises(ConvscopeError, match="none, lrn, batch, layer, instance, group, renorm, ghost, sync"):
        normalisation("xyz123", 3)
