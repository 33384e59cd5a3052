import copy
import functools
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.norm import BatchNorm2d, GroupNorm
from convscope.norm.conversion.around import around
from convscope.norm.conversion.kinds import class_name, class_of, kind_for, place_of, require_target
from convscope.norm.conversion.weaving import Unweavable, engine_under
from norm.conversion.converted_nets import OwnBatchNorm, ReluBatchNorm


class Outer(ReluBatchNorm):
    def forward(self, x):
        return super().forward(x) + 1


class Before:
    def forward(self, x):
        return super().forward(3 * x)


class Mixed(Before, nn.BatchNorm2d):
    pass


class Registered(OwnBatchNorm):
    def forward(self, x):
        return F.elu(super().forward(x))


@around(f"{OwnBatchNorm.__module__}.OwnBatchNorm")
def _doubled(layer, engine, x):
    return 2 * engine(x)


class ByName(nn.BatchNorm2d):
    def forward(self, x):
        return nn.BatchNorm2d.forward(self, x) + 1


class Marked(nn.BatchNorm2d):
    no_decay = True


def wrapped(function):
    @functools.wraps(function)
    def outer(*args):
        return function(*args)

    return outer


class Wrapped(nn.BatchNorm2d):
    @wrapped
    def forward(self, x):
        return -super().forward(x)


AROUND = {
    ReluBatchNorm: lambda engine, x: F.leaky_relu(engine(x), 0.25),
    Outer: lambda engine, x: F.leaky_relu(engine(x), 0.25) + 1,
    Mixed: lambda engine, x: engine(3 * x),
    OwnBatchNorm: lambda engine, x: 2 * engine(x),
    Registered: lambda engine, x: F.elu(2 * engine(x)),
    Marked: lambda engine, x: engine(x),
    Wrapped: lambda engine, x: -engine(x),
}


def made(cls, how, target):
    layer = cls(6)
    layer.__class__ = engine_under(cls, target, how)
    if how == "transplanted":
        layer.num_groups, layer.num_channels = 2, 6
    with torch.no_grad():
        layer.weight.copy_(torch.randn(6))
        layer.bias.copy_(torch.randn(6))
    return layer


class Tenfold(BatchNorm2d):
    """An engine that no other can be mistaken for."""

    def forward(self, x):
        return 10 * x


@pytest.mark.parametrize("cls", AROUND)
def test_a_subclass_does_around_the_new_engine_what_it_did_around_the_old(cls, monkeypatch):
    from convscope.norm.conversion import kinds

    monkeypatch.setattr(kinds, "PLACES", {**kinds.PLACES, Tenfold: kinds.PLACES[BatchNorm2d]})
    layer, x = made(cls, "woven", Tenfold), torch.randn(4, 6, 3, 5)
    torch.testing.assert_close(layer(x), AROUND[cls](lambda value: 10 * value, x))
    assert isinstance(layer, cls)


@pytest.mark.parametrize("cls", AROUND)
def test_transplanted_layers_are_group_norms_and_no_batch_norms(cls):
    layer, x = made(cls, "transplanted", GroupNorm), torch.randn(4, 6, 3, 5)
    expected = AROUND[cls](lambda value: F.group_norm(value, 2, layer.weight, layer.bias, layer.eps), x)
    torch.testing.assert_close(layer(x), expected)
    assert isinstance(layer, GroupNorm)
    assert not isinstance(layer, nn.modules.batchnorm._BatchNorm)


@pytest.mark.parametrize("cls", AROUND)
@pytest.mark.parametrize(("how", "target"), [("woven", BatchNorm2d), ("transplanted", GroupNorm)])
def test_copies_and_pickles_are_of_the_same_class(cls, how, target):
    layer, x = made(cls, how, target), torch.randn(4, 6, 3, 5)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(other) is type(layer)
        assert torch.equal(other.eval()(x), layer.eval()(x))
    assert pickle.loads(pickle.dumps(type(layer))) is type(layer)


def test_the_originals_stay_as_they_are():
    x = torch.randn(4, 6, 3, 5)
    layer = Outer(6).eval()
    before = layer(x)
    engine_under(Outer, GroupNorm, "transplanted")
    engine_under(Outer, BatchNorm2d, "woven")
    assert torch.equal(layer(x), before)
    assert Outer.__mro__[1:3] == (ReluBatchNorm, nn.BatchNorm2d)


def test_classes_that_cannot_be_given_an_engine():
    with pytest.raises(Unweavable, match=r"ByName\.forward computes its output itself"):
        engine_under(ByName, BatchNorm2d, "woven")

    class Meta(type):
        pass

    class Strange(nn.BatchNorm2d, metaclass=Meta):
        pass

    with pytest.raises(Unweavable, match="metaclass of its own, Meta"):
        engine_under(Strange, BatchNorm2d, "woven")


def test_the_same_recipe_gives_the_same_class_under_a_name_that_says_both():
    one, two = (engine_under(Outer, BatchNorm2d, "woven") for _ in range(2))
    assert one is two
    assert one.__name__ == "Outer[BatchNorm2d]"
    assert class_name(one).endswith("test_weaving.Outer[BatchNorm2d]")


def test_places_and_kinds():
    assert place_of(Outer) == ("torch", "batch", 2)
    assert place_of(nn.Conv2d) is None
    assert kind_for("torch", place_of(GroupNorm)) == "torch"
    assert kind_for("batch", place_of(GroupNorm)) is None
    assert class_of("torch", "batch", 3) is nn.BatchNorm3d
    assert class_of("torch-sync", "batch", 2) is nn.SyncBatchNorm
    assert require_target("ghost") == "ghost"
