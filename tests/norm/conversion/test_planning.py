import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope import ConvscopeError
from convscope import norm as ours
from convscope.norm.conversion.convert import convert
from convscope.norm.freezing import freeze as freezing
from convscope.norm.layers import sync as ours_sync
from norm.conversion.converted_nets import (
    Net,
    OwnBatchNorm,
    ReluBatchNorm,
    assert_same_state,
    state,
    trained,
)

SHAPE = (4, 3, 9, 8)


@pytest.fixture
def net():
    return trained(Net(), *SHAPE)


def test_a_subclass_that_computes_everything_itself_is_left_and_named(net, monkeypatch):
    from convscope.norm.conversion import around

    monkeypatch.setattr(around, "_RULES", {})
    net.bn1 = OwnBatchNorm(8)
    conversion = convert(net, "batch")
    entry = conversion.entries[0]
    assert (entry.path, entry.status, type(net.bn1)) == ("bn1", "kept", OwnBatchNorm)
    assert "computes its output itself" in entry.reason
    assert conversion.converted == 3


class Wrong(nn.BatchNorm2d):
    """Its forward pass asks for its class."""

    def forward(self, x):
        return super().forward(x) + (type(self) is Wrong)


def test_a_layer_that_would_say_something_else_is_refused():
    net = nn.Sequential(Wrong(3), nn.BatchNorm2d(3))
    before = state(net)["0"]
    conversion = convert(net, "batch")
    assert conversion.entries[0].status == "refused"
    assert "its output would differ by" in conversion.entries[0].reason
    assert state(net)["0"][:4] == before[:4]
    assert type(net[1]) is ours.BatchNorm2d


def test_layers_that_are_left_say_why():
    from torch.nn.utils import parametrize

    patched, held, lazy = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.LazyBatchNorm2d()
    patched.forward = lambda x: x
    parametrize.register_parametrization(held, "weight", nn.Identity())
    net = nn.Sequential(patched, held, lazy, ours.BatchNorm2d(3))
    entries = convert(net, "batch").entries
    assert [entry.status for entry in entries] == ["kept", "kept", "refused", "kept"]
    for entry, words in zip(
        entries, ("forward was replaced", "parametrisation", "lazy", "already"), strict=True
    ):
        assert words in entry.reason


def test_frozen_layers_change_and_stay_frozen(net):
    x = torch.randn(SHAPE)
    freezing.freeze(net, only="bn2")
    expected = copy.deepcopy(net).eval()(x)
    assert convert(net, "batch").converted == 3
    assert freezing.is_frozen(net.train().bn2)
    assert not net.bn2.training
    assert torch.equal(copy.deepcopy(net).eval()(x), expected)
    other = pickle.loads(pickle.dumps(net))
    assert freezing.is_frozen(other.bn2)
    freezing.unfreeze(net)
    assert isinstance(net.bn2, ReluBatchNorm)
    assert isinstance(net.bn2, ours.BatchNorm2d)
    convert(net, "torch")
    assert type(net.bn2) is ReluBatchNorm
    freezing.freeze(net, only="bn2")
    entry = convert(net, "group").entries[1]
    assert entry.status == "kept"
    assert "frozen" in entry.reason


def test_synchronised_layers_of_unknown_rank_need_inputs():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.SyncBatchNorm(4), nn.Flatten(), nn.Linear(80, 5), nn.SyncBatchNorm(5)
    )
    with pytest.raises(ConvscopeError, match=r"SyncBatchNorm at '1' takes inputs of any rank.*inputs="):
        convert(net, "torch")
    assert type(net[1]) is nn.SyncBatchNorm
    convert(net, "torch", (2, 3, 5, 4))
    assert (type(net[1]), type(net[4])) == (nn.BatchNorm2d, nn.BatchNorm1d)
    convert(net, "torch-sync")
    assert type(net[1]) is nn.SyncBatchNorm


class SyncRelu(nn.SyncBatchNorm):
    def forward(self, x):
        return F.relu(super().forward(x))


def test_subclasses_of_synchronised_layers_cease_to_be_synchronised():
    net, x = trained(nn.Sequential(SyncRelu(3)), *SHAPE), torch.randn(SHAPE)
    before, expected = state(net), copy.deepcopy(net).eval()(x)
    for kind in ("torch", "sync", "batch", "torch-sync"):
        convert(net, kind, x)
        assert isinstance(net[0], nn.SyncBatchNorm) == (kind == "torch-sync")
        assert isinstance(net[0], ours_sync.SyncBatchNorm) == (kind == "sync")
        assert torch.equal(copy.deepcopy(net).eval()(x), expected)
        assert torch.equal(pickle.loads(pickle.dumps(net)).eval()(x), expected)
    assert_same_state(before, state(net))


class OursRelu(ours.BatchNorm2d):
    def forward(self, x):
        return F.relu(super().forward(x))


def test_subclasses_of_ours_leave_and_come_back():
    net, x = trained(nn.Sequential(OursRelu(3)), *SHAPE), torch.randn(SHAPE)
    before, expected = state(net), copy.deepcopy(net).eval()(x)
    for kind in ("torch", "sync", "batch"):
        convert(net, kind, x)
        assert isinstance(net[0], ours.BatchNorm2d) == (kind != "torch")
        assert torch.equal(copy.deepcopy(net).eval()(x), expected)
    assert_same_state(before, state(net))


def test_a_synchronised_layer_on_its_own():
    layer = nn.SyncBatchNorm(4)
    convert(layer, "torch", (6, 4))
    assert type(layer) is nn.BatchNorm1d


def test_settings_of_layers_that_are_of_the_kind_already():
    group, net = object(), nn.Sequential(nn.BatchNorm2d(4))
    convert(net, "sync")
    assert convert(net, "sync").kept == 1
    assert convert(net, "sync", process_group=group).converted == 1
    assert net[0].process_group is group


def test_a_synchronised_layer_that_the_inputs_do_not_come_by_is_refused(net):
    net.spare = nn.SyncBatchNorm(4)
    entry = convert(net, "torch", (2, 3, 9, 8)).entries[-1]
    assert (entry.path, entry.status) == ("spare", "refused")
    assert "didn't come by" in entry.reason


def test_on_the_meta_device():
    with torch.device("meta"):
        net = nn.Sequential(nn.BatchNorm2d(3))
    entry = convert(net, "sync").entries[0]
    assert entry.status == "converted"
    assert "meta device" in entry.reason
    with pytest.raises(ConvscopeError, match="meta device"):
        convert(net, "torch", (2, 3, 4, 4))
