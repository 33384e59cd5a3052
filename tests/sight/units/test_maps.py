import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cases import FunctionalNet, ResidualNet
from convscope.core.errors import ConvscopeError
from convscope.norm import GroupNorm, LocalResponseNorm
from convscope.sight.units.choice import chosen
from convscope.sight.units.maps import units_of
from convscope.tape import record


def addresses(model, shape=(2, 3, 17, 13)):
    return {unit.name: unit.unit_address for unit in units_of(record(model, shape))[0]}


def test_a_channel_is_followed_through_its_normalisation_and_activation():
    assert addresses(ResidualNet()) == {
        "stem.0": "stem.2#1:relu_.1",
        "conv1": "self#1:relu_.1",
        "conv2": "bn2#1:batch_norm.1",  # what follows adds another branch
        "shortcut": "shortcut#1:convolution.1",
    }


def test_functional_networks_have_units_too():
    assert addresses(FunctionalNet()) == {"self#1:convolution.1": "self#1:clamp.1"}


@pytest.mark.parametrize(
    ("layers", "last"),
    [
        ([nn.ReLU(), nn.BatchNorm2d(4)], "1#1:relu.1"),
        ([nn.ReLU(), LocalResponseNorm(3)], "1#1:relu.1"),
        ([nn.BatchNorm2d(4), nn.GELU()], "2#1:gelu.1"),
        ([nn.GroupNorm(2, 4), nn.SiLU()], "2#1:silu.1"),
        ([GroupNorm(2, 4), nn.ReLU()], "2#1:relu.1"),
        ([nn.InstanceNorm2d(4), nn.ReLU6()], "2#1:hardtanh.1"),
        ([nn.InstanceNorm2d(4)], "1#1:view.2"),
        ([nn.MaxPool2d(2), nn.ReLU()], "0#1:convolution.1"),
        ([nn.Conv2d(4, 4, 1)], "0#1:convolution.1"),
        ([nn.PReLU()], "1#1:_prelu_kernel.1"),
    ],
)
def test_it_ends_after_one_activation_and_before_what_mixes_positions_or_channels(layers, last):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), *layers)
    assert addresses(net)["0"] == last


class Scaled(nn.Module):
    """A frozen batch norm written as arithmetic on buffers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("scale", torch.rand(4))
        self.register_buffer("shift", torch.rand(4))

    def forward(self, x):
        x = self.conv(x)
        return F.relu(x * self.scale.reshape(1, -1, 1, 1) + self.shift.reshape(1, -1, 1, 1))


class Doubled(nn.Module):
    """CReLU: two readers of one map."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        x = self.conv(x)
        return torch.cat([x.relu(), (-x).relu()], 1)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x):
        return self.conv(self.conv(x).relu())


class Mixed(nn.Module):
    """Convolutions that aren't over one image: one-dimensional, of weights, and of folded patches."""

    def __init__(self):
        super().__init__()
        self.line = nn.Conv1d(3, 2, 3)
        self.flat = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        halves = torch.cat([x[..., :4], x[..., 4:8]])
        return self.line(x.flatten(2)).sum() + self.flat(halves).sum()


def test_arithmetic_scales_are_followed_and_readers_counted():
    assert addresses(Scaled()) == {"conv": "self#1:relu.1"}
    assert addresses(Doubled()) == {"conv": "conv#1:convolution.1"}


class Negated(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.conv, self.change = nn.Conv2d(3, 4, 3), change

    def forward(self, x):
        return F.max_pool2d(F.relu(self.change(self.conv(x))), 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda y: -y, lambda y: 0 - y, lambda y: torch.ones(4, 1, 1) - y, lambda y: -1 * y, lambda y: y * -1,
        lambda y: torch.rand(4, 1, 1) * y, lambda y: y.neg_(), lambda y: y / 3, lambda y: y.neg().add(1),
    ],
)  # fmt: skip
def test_negated_channels_are_followed(change):
    assert addresses(Negated(change)) == {"conv": "self#1:relu.1"}


@pytest.mark.parametrize("change", [lambda y: 1 / y, lambda y: y * y.mean(), lambda y: y - y.flip(1)])
def test_what_is_no_scale_ends_it(change):
    assert addresses(Negated(change)) == {"conv": "conv#1:convolution.1"}


@pytest.mark.parametrize("layers", [[], (), None, 2, [0], {"conv1"}])
def test_layers_that_name_none_are_refused(layers):
    units, _ = units_of(record(ResidualNet(), (2, 3, 17, 13)))
    with pytest.raises(ConvscopeError, match=r"layers=.* for a gallery; expected 'all', or names"):
        chosen(units, layers)


def test_a_shared_convolution_has_units_at_each_call():
    assert addresses(Twice()) == {
        "conv#1:convolution.1": "self#1:relu.1",
        "conv#2:convolution.1": "conv#2:convolution.1",
    }


def test_what_is_not_a_map_over_one_image_is_listed():
    units, left_out = units_of(record(Mixed(), (2, 3, 9, 9)))
    assert units == ()
    assert [text.partition(":c")[0] for text in left_out] == ["line#1", "flat#1"]
    with pytest.raises(ConvscopeError, match="without convolutions"):
        chosen(units, "all")


def test_layers_are_chosen_by_name_or_address():
    units, _ = units_of(record(ResidualNet(), (2, 3, 17, 13)))
    assert chosen(units, "all") == units
    assert [u.name for u in chosen(units, ["conv2", "stem.2#1:relu_.1"])] == ["stem.0", "conv2"]
    assert [u.name for u in chosen(units, "conv1")] == ["conv1"]
    with pytest.raises(ConvscopeError, match=r"conv9.*stem\.0, conv1"):
        chosen(units, ["conv9"])
