import pytest
import torch
from torch import nn

from convscope.norm.conversion.convert import convert
from norm.conversion.converted_nets import (
    Net,
    trained,
)

SHAPE = (4, 3, 9, 8)


@pytest.fixture
def net():
    return trained(Net(), *SHAPE)


def test_nothing_moves_while_it_is_compared(net):
    tensors = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    x, kept = torch.randn(SHAPE), torch.get_rng_state()
    given = x.clone()
    for kind, inputs in (("batch", x), ("renorm", x), ("group", (2, 3, 9, 9))):
        convert(net, kind, inputs)
        found = net.state_dict()
        assert kind == "group" or found.keys() == tensors.keys()
        assert all(torch.equal(tensors[name], tensor) for name, tensor in found.items())
        assert torch.equal(torch.get_rng_state(), kept)
        assert torch.equal(x, given)
        assert modes == [module.training for module in net.modules()]


def test_dropout_and_steps_in_place_do_not_count_as_differences():
    net = nn.Sequential(nn.ReLU(inplace=True), nn.BatchNorm2d(3), nn.Dropout(0.5))
    x, left = torch.randn(SHAPE), torch.randn(SHAPE)
    left.copy_(x)
    conversion = convert(net, "batch", x)
    assert torch.equal(x, left)
    assert all(each.max_relative < 1e-6 for each in conversion.differences)


def test_layers_without_running_statistics_are_equal_but_for_rounding():
    net = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False))
    conversion = convert(net, "batch", SHAPE)
    assert conversion.converted == 1
    assert 0 <= conversion.entries[0].difference < 1e-6


def test_training_mode_that_cannot_be_compared_is_noted():
    net = nn.Sequential(nn.BatchNorm1d(3))
    conversion = convert(net, "batch", (1, 3))
    assert [each.mode for each in conversion.differences] == ["evaluation"]
    assert "training mode wasn't compared" in conversion.notes[0]


class ByClass(nn.Module):
    """A network whose own code asks for its layer's class."""

    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.bn(x) if type(self.bn) is nn.BatchNorm2d else x


def test_a_network_that_asks_for_a_class_is_noted():
    conversion = convert(trained(ByClass(), *SHAPE), "batch", SHAPE)
    assert not conversion.differences[0].bit_equal
    assert any("ask for a layer's class" in note for note in conversion.notes)


def test_inputs_of_every_form(net):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, image, scale=1.0):
            return {"out": self.net(image * scale)}

    x = torch.randn(SHAPE)
    for inputs in ({"image": x, "scale": 2.0}, (x,), [x], x, SHAPE, {"image": SHAPE}):
        assert convert(Named(), "batch", inputs).differences[0].bit_equal
        convert(net, "torch")


def test_connected_processes_exchange_nothing_in_a_comparison(net, tmp_path):
    dist = torch.distributed
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        conversion = convert(net, "torch-sync", SHAPE)
    finally:
        dist.destroy_process_group()
    assert [each.mode for each in conversion.differences] == ["evaluation"]
    assert "exchange statistics between processes" in conversion.notes[0]


@pytest.mark.parametrize(
    ("before", "to", "words"),
    [
        ("ghost", "torch", "another than that of ghost"),
        ("renorm", "batch", "another than that of renorm"),
        ("renorm", "convscope", "the same function in both modes"),
        ("sync", "batch", "with several processes, statistics are those of each one's own batch"),
        ("torch", "batch", "the same function in both modes"),
        ("ghost", "group", "another function"),
    ],
)
def test_the_relation_by_design_goes_by_what_layers_were(before, to, words):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    settings = {"ghost": {"ghost_batch_size": 2}, "renorm": {"r_max": 3.0, "d_max": 5.0, "relaxation": None}}
    if before != "torch":
        convert(net, before, **settings.get(before, {}))
    net.append(nn.BatchNorm2d(8))
    conversion = convert(net, to, (8, 3, 6, 6))
    assert words in conversion.expected
    _, in_training, *_ = conversion.differences
    is_same = "same function" in conversion.expected and "another" not in conversion.expected
    assert (in_training.max_relative < 1e-5) is is_same
    assert not any("magnify" in note for note in conversion.notes)


def test_rounding_that_batch_norms_magnify_is_noted():
    # Two values a channel, all but equal: which one is larger is a matter of rounding.
    layers = [layer for _ in range(3) for layer in (nn.Linear(64, 64), nn.BatchNorm1d(64, eps=1e-12))]
    net = nn.Sequential(nn.Linear(3, 64), *layers)
    x = torch.randn(1, 3) * 1e3 + torch.randn(2, 3) * 1e-3
    conversion = convert(net, "batch", x)
    assert conversion.differences[0].bit_equal
    assert any("outputs in training changed" in note and "float64" in note for note in conversion.notes)
