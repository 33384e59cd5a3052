import copy
import pickle

import pytest
import torch
from torch import nn

from convscope import ConvscopeError
from convscope import norm as ours
from convscope.norm.conversion.convert import convert
from convscope.norm.layers import renorm as ours_renorm
from convscope.norm.layers import sync as ours_sync
from norm.conversion.converted_nets import (
    ReluBatchNorm,
    state,
    trained,
)

SHAPE = (4, 3, 9, 8)


def test_process_groups_are_set_kept_and_given_back():
    group = object()
    net = nn.Sequential(nn.SyncBatchNorm(4, process_group=group))
    for kind in ("sync", "torch", "torch-sync"):
        convert(net, kind, (2, 4, 3, 3))
    assert net[0].process_group is group
    other = nn.Sequential(nn.BatchNorm2d(4))
    convert(other, "sync", process_group=group)
    assert other[0].process_group is group
    convert(other, "torch")
    assert not hasattr(other[0], "process_group")


@pytest.mark.parametrize("options", [
    {"affine": False}, {"track_running_stats": False}, {"momentum": None}, {"eps": 0.25}, {"bias": False},
])  # fmt: skip
@pytest.mark.parametrize("kind", ["batch", "sync", "torch-sync"])
def test_unusual_settings_go_along(options, kind):
    net = trained(nn.Sequential(nn.BatchNorm2d(3, **options)).double(), *SHAPE)
    before, x = state(net), torch.randn(SHAPE, dtype=torch.float64)
    reference = copy.deepcopy(net)
    convert(net, kind, x)
    for mode in (True, False):
        torch.testing.assert_close(net.train(mode)(x), reference.train(mode)(x), rtol=0, atol=1e-12)
    net.load_state_dict(reference.state_dict())
    net.train()
    convert(net, "torch")
    assert {path: each[:4] for path, each in state(net).items()} == {
        path: each[:4] for path, each in before.items()
    }


def test_nothing_of_convscope_stays_on_torchs_layers():
    net = nn.Sequential(ours.BatchNorm2d(3), ours.GroupNorm(1, 3))
    convert(net, "sync")
    convert(net, "torch")
    assert b"convscope" not in pickle.dumps(net)
    assert type(net[0]) is nn.BatchNorm2d
    others = nn.Sequential(ours_sync.SyncBatchNorm(3), ours_renorm.BatchRenorm2d(3, r_max=2.0))
    convert(others, "torch", SHAPE)
    assert b"convscope" not in pickle.dumps(others)
    assert [*map(type, others)] == [nn.BatchNorm2d] * 2
    convert(others, "torch-sync")
    assert b"convscope" not in pickle.dumps(others)


def test_ghost_batches_of_the_size_asked_for():
    net, x = trained(nn.Sequential(ReluBatchNorm(3)), *SHAPE), torch.randn(8, 3, 5, 4)
    reference = copy.deepcopy(net)
    conversion = convert(net, "ghost", x, ghost_batch_size=4)
    assert conversion.differences[0].bit_equal
    assert conversion.differences[1].max_relative > 1e-3  # in training, by design
    assert "normalised by its own statistics" in conversion.expected
    parts = torch.cat([copy.deepcopy(reference)(part) for part in x.split(4)])
    torch.testing.assert_close(net(x), parts)
    convert(net, "batch")
    assert not hasattr(net[0], "ghost_batch_size")
    with pytest.raises(ConvscopeError, match="did you mean 'ghost_batch_size'"):
        convert(net, "ghost", ghost_size=4)
    with pytest.raises(ConvscopeError, match=r"ghost_batch_size=0; expected .*at least 1"):
        convert(net, "ghost", ghost_batch_size=0)


def test_renormalised_training_is_that_of_test_time_when_nothing_is_clipped():
    net, x = trained(nn.Sequential(ReluBatchNorm(3)), *SHAPE), torch.randn(8, 3, 5, 4)
    expected = copy.deepcopy(net).eval()(x)
    conversion = convert(net, "renorm", x, r_max=1e3, d_max=1e3, relaxation=None)
    assert conversion.differences[0].bit_equal
    torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-5)
    convert(net, "torch")
    convert(net, "renorm")
    assert (net[0].r_max, net[0].d_max) == (3.0, 5.0)
    bare = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False))
    entry = convert(bare, "renorm").entries[0]
    assert entry.status == "refused"
    assert "running averages to renormalise with" in entry.reason
    assert type(bare[0]) is nn.BatchNorm2d


def test_settings_of_a_subclass_of_ours_come_back():
    net = nn.Sequential(ours.BatchNorm2d(3, warm_start=True))
    convert(net, "sync")
    assert net[0].warm_start
    convert(net, "torch")
    assert not hasattr(net[0], "warm_start")
    convert(net, "batch", warm_start=True)
    assert net[0].warm_start
    convert(net, "batch", warm_start=False)
    assert not net[0].warm_start


def test_half_precision_networks():
    """Ours average in float32; PyTorch's layer wants the averages in the dtype of a half-precision γ."""
    net = trained(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.001)).bfloat16(), *SHAPE)
    x = torch.randn(SHAPE).bfloat16()
    expected = copy.deepcopy(net).eval()(x)
    conversion = convert(net, "batch", x)
    assert net[1].running_mean.dtype == torch.float32
    assert "float32" in conversion.entries[0].reason
    net[1].running_mean.zero_()
    for _ in range(300):
        net(x)
    assert (net[1].running_mean != 0).all()
    conversion = convert(net, "torch", x)
    assert net[1].running_mean.dtype == torch.bfloat16
    assert conversion.entries[0].difference < 1e-2
    assert net.eval()(x).shape == expected.shape
    mixed = nn.Sequential(nn.Conv2d(3, 4, 1).bfloat16(), nn.BatchNorm2d(4))
    for kind in ("batch", "torch"):
        convert(mixed, kind, x)
        assert mixed[1].running_mean.dtype == torch.float32
