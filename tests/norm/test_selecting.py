import pytest
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.norm.selecting import region, select


def network():
    """Two towers that share their last layer."""
    shared = nn.BatchNorm2d(1)

    def tower():
        return nn.Sequential(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)), shared)

    return nn.ModuleDict({"left": tower(), "left2": tower()})


def is_norm(module):
    return isinstance(module, nn.BatchNorm2d)


@pytest.mark.parametrize(
    ("only", "paths"),
    [
        (None, ["left.0.1", "left.1", "left2.0.1"]),
        ("left", ["left.0.1", "left.1"]),  # not left2: a path is no prefix of letters
        ("left2", ["left.1", "left2.0.1"]),
        ("left2.1", ["left.1"]),
        ("left*", ["left.0.1", "left.1", "left2.0.1"]),
        ("*.0", ["left.0.1", "left2.0.1"]),
        ("left?.0", ["left2.0.1"]),
        ("left[2-9]", ["left.1", "left2.0.1"]),
        (("left2.0", "left.0"), ["left.0.1", "left2.0.1"]),
        ((word for word in ("left.1", "left.1")), ["left.1"]),
    ],
)
def test_words(only, paths):
    assert list(select(network(), only, is_norm, "batch norm")) == paths


def test_a_layer_by_itself():
    layer = nn.BatchNorm2d(1)
    assert select(layer, None, is_norm, "batch norm") == {"": layer}
    assert select(layer, "", is_norm, "batch norm") == {"": layer}


def test_the_region_has_all_modules():
    assert list(region(network(), "left")) == ["left", "left.0", "left.0.0", "left.0.1", "left.1"]


def test_a_name_that_looks_like_a_pattern():
    net = nn.ModuleDict({"a[1]": nn.BatchNorm2d(1), "a1": nn.BatchNorm2d(1)})
    assert list(select(net, "a[1]", is_norm, "batch norm")) == ["a[1]"]


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("LEFT", "only='LEFT', which is no module of this ModuleDict"),
        ("left.2", r"only='left\.2', which .*; did you mean 'left.*'\?"),
        (
            "left.0.0",
            r"only='left\.0\.0', in which there is no batch norm; expected .*: 'left\.0\.1', 'left\.1'",
        ),
        (["left", "nowhere"], "only='nowhere'"),
        (["left", None], "only= with an object of type NoneType"),
        (nn.Sequential(nn.ReLU()), "only= with an object of type ReLU"),
    ],
)
def test_words_that_name_nothing(only, message):
    with pytest.raises(ConvscopeError, match=message):
        select(network(), only, is_norm, "batch norm")


def test_many_layers_are_listed_briefly():
    net = nn.Sequential(nn.ReLU(), *(nn.BatchNorm2d(1) for _ in range(9)))
    with pytest.raises(ConvscopeError, match=r"'1', '2', '3', '4', '5', …; name"):
        select(net, "0", is_norm, "batch norm")


def test_no_network():
    with pytest.raises(ConvscopeError, match=r"expected a torch\.nn\.Module"):
        select("resnet18", None, is_norm, "batch norm")
