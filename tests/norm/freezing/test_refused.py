import pytest
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from cases import ResidualNet
from convscope.core.errors import ConvscopeError
from convscope.norm.freezing.freeze import freeze, is_frozen, unfreeze


def lazy():
    return nn.Sequential(nn.BatchNorm2d(3), nn.LazyBatchNorm2d())


def parametrised():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    weight_norm(net[1], "weight")
    return net


REFUSED = {
    "no statistics": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False)),
        {},
        r"BatchNorm2d at '1', which keeps no running statistics.*track_running_stats=True",
    ),
    "no statistics by itself": (
        lambda: nn.BatchNorm2d(3, track_running_stats=False),
        {},
        "BatchNorm2d, which",
    ),
    "no statistics any more": (
        lambda: (net := nn.Sequential(nn.BatchNorm2d(3)), setattr(net[0], "running_var", None))[0],
        {},
        "at '0', which keeps no running statistics",
    ),
    "an instance norm by name": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.InstanceNorm2d(3)),
        {"only": "1"},
        "only='1', in which there is no batch norm .*: '0'",
    ),
    "a network by name without any": (
        lambda: nn.Sequential(nn.ReLU()),
        {"only": "0"},
        "a network with a batch norm",
    ),
    "lazy": (
        lazy,
        {},
        "LazyBatchNorm2d at '1', which doesn't know its number of channels.*run the network once",
    ),
    "parametrised": (parametrised, {}, "'1', whose weight or bias is parametrised"),
    "unknown path": (
        ResidualNet,
        {"only": ["bn1", "stam"]},
        "'stam', which is no module .*did you mean 'stem'?",
    ),
    "unknown pattern": (
        ResidualNet,
        {"only": "layer*"},
        r"only='layer\*', which is no module of this ResidualNet",
    ),
    "not text": (ResidualNet, {"only": ["bn1", 3]}, "type int; expected module paths"),
    "not words": (ResidualNet, {"only": 3}, "type int; expected module paths"),
    "no network": (lambda: "resnet18", {}, "'resnet18' as the network; expected a torch.nn.Module"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_changes(name):
    make, arguments, message = REFUSED[name]
    net = make()
    with pytest.raises(ConvscopeError, match=message):
        freeze(net, **arguments)
    if isinstance(net, nn.Module):
        assert not any(map(is_frozen, net.modules()))
        assert all(parameter.requires_grad for parameter in net.parameters())


def test_a_class_that_changed_after_freezing():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    frozen = freeze(net, affine=False)
    weight_norm(net[1], "weight")
    for undo in (frozen.undo, lambda: unfreeze(net)):
        with pytest.raises(ConvscopeError, match="at '1', whose class was changed after it was frozen"):
            undo()
        assert is_frozen(net[0])
    nn.utils.parametrize.remove_parametrizations(net[1], "weight")
    frozen.undo()
    assert not is_frozen(net[1])
