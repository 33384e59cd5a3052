"""The oracle: which pixels change a position's value when they are poked, one by one, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.sight.projecting.projection import Box
from convscope.sight.projecting.projector import box_of
from convscope.sight.projecting.reach import reach
from convscope.tape import record
from convscope.tape.receptive_field import receptive_fields


class Unet(nn.Module):
    """Down and up again, with a skip: windows differ from position to position."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.deep = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1)
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x):
        first = F.gelu(self.norm(self.down(x)))
        again = self.up(F.relu(self.deep(first)))[:, :, : first.shape[2], : first.shape[3]]
        return F.interpolate(self.last(torch.cat([first, again], 1)), scale_factor=2, mode="nearest")


class Pooled(nn.Module):
    """Overlapping pools with rounded-up sizes, two strides meeting in a sum."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, dilation=2)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True, padding=1)
        self.gate = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        x = F.leaky_relu(self.conv(x))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))  # a switch: no way for the signal
        return F.interpolate(self.pool(x), x.shape[2:], mode="bilinear") - x


def poked(net, image, position, *, held=()):
    """The box of the pixels that change the channels at a position, found by changing each of them."""
    y, x = position
    seen = torch.zeros(image.shape[2:], dtype=torch.bool)
    with torch.no_grad():
        for row in range(image.shape[2]):
            for column in range(image.shape[3]):
                for size in (1e3, -1e3):  # large, so that it becomes every window's maximum or not
                    other = image.clone()
                    other[:, :, row, column] += size
                    seen[row, column] |= bool((net(other) - net(image))[..., y, x].abs().max() > 1e-6)
    rows, columns = (seen.any(axis).nonzero().flatten() for axis in (1, 0))
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


@pytest.mark.parametrize("position", [(0, 0), (5, 8), (6, 9), (11, 15)])
def test_windows_that_differ_by_position_are_those_that_poking_finds(position):
    net = Unet().double().eval()
    image = torch.randn(1, 2, 12, 16, dtype=torch.float64)
    tape = record(net, (1, 2, 12, 16))
    assert receptive_fields(tape)[tape.outputs[0]] is None
    assert reach(net, tape, tape.outputs[0], [position], image) == [poked(net, image, position)]


def test_gates_are_no_way_and_pools_are_seen_whole():
    net = Pooled().eval()
    tape = record(net, (1, 2, 13, 11))
    found = reach(net, tape, tape.outputs[0], [(4, 3)], torch.zeros(1, 2, 13, 11))

    class Ungated(Pooled):
        def forward(self, x):
            x = F.leaky_relu(self.conv(x))
            return F.interpolate(self.pool(x), x.shape[2:], mode="bilinear") - x

    other = Ungated().double().eval()
    other.load_state_dict(net.state_dict())
    assert found == [poked(other, torch.randn(1, 2, 13, 11, dtype=torch.float64), (4, 3))]


@pytest.mark.parametrize("position", [(0, 0), (2, 1), (3, 4)])
def test_where_the_recording_knows_the_window_it_is_the_same(position):
    layers = [nn.Conv2d(3, 4, 5, 2, padding=1), nn.SiLU(), nn.MaxPool2d(3, 2), nn.Conv2d(4, 5, 3), nn.ReLU6()]
    net = nn.Sequential(*layers).eval()
    tape = record(net, (1, 3, 29, 34))
    field = receptive_fields(tape)[tape.outputs[0]]
    found = reach(net, tape, tape.outputs[0], [position], torch.zeros(1, 3, 29, 34))
    assert found == [box_of(field, position, (29, 34))]


def test_operators_without_a_rule_give_no_box():
    class Squared(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) ** 2

    net = Squared(3, 4, 3).eval()
    tape = record(net, (1, 3, 8, 8))
    assert reach(net, tape, tape.outputs[0], [(0, 0)], torch.zeros(1, 3, 8, 8)) is None


def test_the_network_is_untouched():
    net = Unet()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    tape = record(net, (1, 2, 12, 16))
    reach(net, tape, tape.outputs[0], [(1, 1)], torch.zeros(1, 2, 12, 16))
    assert net.training
    assert all(torch.equal(before[name], v) for name, v in net.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
