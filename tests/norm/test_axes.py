import pytest
import torch
from torch import nn

from convscope.norm.axes import GHOST, MEMBERS, Member, along, legend

TORCH = {
    "batch": lambda: nn.BatchNorm2d(6, affine=False),
    "layer": lambda: nn.LayerNorm((6, 3, 5), elementwise_affine=False),
    "instance": lambda: nn.InstanceNorm2d(6),
}


@pytest.mark.parametrize("kind", TORCH)
def test_averaged_dimensions_are_those_along_which_torch_zeroes_the_mean(kind):
    y = TORCH[kind]()(torch.randn(4, 6, 3, 5) * torch.randn(4, 6, 1, 1) + torch.randn(4, 6, 1, 1))
    dims = MEMBERS[kind].dims(legend(4))
    assert y.mean(dims).abs().max() < 1e-5
    for dim in dims:
        if len(dims) > 1:  # no smaller set of axes has mean zero
            assert y.mean([d for d in dims if d != dim]).abs().max() > 1e-2


def test_group_averages_over_the_channels_of_a_group_and_space():
    y = nn.GroupNorm(3, 6, affine=False)(torch.randn(4, 6, 3, 5) + torch.randn(4, 6, 1, 1))
    assert y.view(4, 3, 2, 3, 5).mean(MEMBERS["group"].dims(legend(4, grouped=True))).abs().max() < 1e-5


def test_ghost_averages_over_the_samples_of_a_part_and_space():
    """PyTorch's layer on each part zeroes these means, and no others."""
    x = torch.randn(6, 4, 3, 5) * torch.randn(6, 4, 1, 1) + torch.randn(6, 4, 1, 1)
    y = torch.stack([nn.BatchNorm2d(4, affine=False)(part) for part in x.split(2)])
    axes = legend(4, parted=True)
    assert y.mean(GHOST.dims(axes)).abs().max() < 1e-5
    for dim in GHOST.dims(axes):
        assert y.mean([d for d in GHOST.dims(axes) if d != dim]).abs().max() > 1e-2


def test_samples_are_parts_and_samples_of_a_part():
    assert GHOST.averages("n")
    assert not GHOST.averages("N")
    assert not GHOST.averages("P")
    for axis in "NPn":
        assert MEMBERS["batch"].averages(axis)
        assert not MEMBERS["layer"].averages(axis)
    assert Member("batch", frozenset("PnS")).dims("NCSS") == MEMBERS["batch"].dims("NCSS")


def test_legends_of_every_rank():
    assert [legend(rank) for rank in (2, 3, 4, 5)] == ["NC", "NCS", "NCSS", "NCSSS"]
    assert [legend(rank, parted=True) for rank in (2, 3, 4, 5)] == ["PnC", "PnCS", "PnCSS", "PnCSSS"]
    assert MEMBERS["layer"].dims("NCSS") == (1, 2, 3)
    assert MEMBERS["layer"].dims("NNC") == (2,)
    assert MEMBERS["instance"].dims("NC") == ()


def test_along_keeps_none():
    assert along(None, "NCSS") is None
    assert along(torch.arange(3.0), "NCS").shape == (1, 3, 1)
