"""Every winner's picture is what a projection of the whole image alone, one unit at a time, makes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.sight import ImageSource
from convscope.sight.collecting.scan import scan
from convscope.sight.picturing.places import blocks_of
from convscope.sight.picturing.plan import plan
from convscope.sight.picturing.winners import look
from convscope.sight.projecting.projector import projecting
from convscope.sight.units.maps import units_of
from convscope.tape import record


def views_of(net, images, rule, *, narrow=True, top=3):
    """All wins of all layers with their pictures, in one block."""
    source = ImageSource(images, batch_size=4)
    tape = record(net, images[:1].repeat(2, 1, 1, 1))
    planned = plan(net, tape, units_of(tape)[0], rule, source)
    drawings = planned.drawings(scan(net, source, planned.units, top).tallies, 0)
    layers = [drawing.look for drawing in drawings]
    with projecting(net, tape, planned.rule, narrow=narrow) as projector:
        return [
            (layer, view)
            for block in blocks_of(layers)
            for layer, view in look(projector, layers, block, images[list(block)])
        ]


class Branching(nn.Module):
    """Odd strides, dilation, groups, a skip, a concatenation, pools with padding and rounded up."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5, stride=(3, 2), padding=2)
        self.norm = nn.BatchNorm2d(8, eps=0)
        self.wide = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2)
        self.short = nn.Conv2d(8, 4, 1, stride=2)
        self.last = nn.Conv2d(12, 4, 3, padding=(0, 1))

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = x + F.relu(self.wide(x))
        pooled = F.max_pool2d(x, 3, 2, padding=1)
        x = torch.cat([pooled, self.short(x)], 1)
        return F.relu(self.last(F.max_pool2d(x, 3, 2, ceil_mode=True)))


class Gated(nn.Module):
    """A squeeze-and-excitation gate, a group norm and SiLUs."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.deep = nn.Conv2d(8, 6, 3, padding=1)

    def forward(self, x):
        x = F.silu(self.norm(self.stem(x)))
        gate = self.up(F.silu(self.down(x.mean((2, 3), keepdim=True)))).sigmoid()
        return F.silu(self.deep(x * gate))


class LayerNormed(nn.Module):
    """Layer norm over channels, as in ConvNeXt, and GELU."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.LayerNorm(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.mix = nn.Conv2d(8, 6, 1)

    def forward(self, x):
        x = self.norm(self.stem(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return F.gelu(self.mix(x + self.depthwise(x)))


def in_whole_numbers(net):
    """Weights with which float64 makes no rounding error, so that an order of summation shows nothing."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.uniform_(module.weight, -3, 3).data.round_()
            nn.init.uniform_(module.bias, -2, 2).data.round_()
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data = torch.tensor([-1.0, 0.5, 1, 2] * (module.num_features // 4))
            module.bias.data = torch.arange(module.num_features) - 2.0
    return net.double()


def compared(net, images, rule, *, narrow=True):
    """(largest difference, largest value, whether the support is the same, whether it is a window's)."""
    views = [each for each in views_of(net, images, rule, narrow=narrow) if each[1].projection is not None]
    tape = record(net, images[:1])
    with projecting(net, tape, rule) as projector:
        for layer, view in views:
            place, box = view.place, view.box
            seeds = [(place.unit, place.position)]
            whole = projector.project(layer.maps.unit_address, images[place.image][None], seeds)[0]
            outside = whole.clone()
            outside[:, box.top : box.bottom, box.left : box.right] = 0
            assert not outside.any()
            part = whole[:, box.top : box.bottom, box.left : box.right].float()
            found = torch.from_numpy(view.projection)
            assert found.shape == part.shape
            yield (
                float((found - part).abs().max()), float(part.abs().max()),
                bool(((found != 0) == (part != 0)).all()), not view.is_whole,
            )  # fmt: skip


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gated", "gradient"])
@pytest.mark.parametrize("size", [(63, 88), (50, 71)])
def test_pictures_are_exactly_the_whole_images_where_arithmetic_is_exact(rule, size):
    net = in_whole_numbers(Branching())
    images = torch.randint(-4, 5, (6, 3, *size)).double()
    found = list(compared(net, images, rule))
    assert max(difference for difference, *_ in found) == 0
    in_windows = [is_window for *_, is_window in found]
    assert 20 <= sum(in_windows) < len(found)


@pytest.mark.parametrize(
    ("make", "rule"),
    [(Branching, "guided"), (Branching, "deconvnet"), (Gated, "gated"), (LayerNormed, "gated")],
)
@pytest.mark.parametrize("narrow", [False, True])
def test_pictures_are_the_whole_images_but_for_rounding(make, rule, narrow):
    images = torch.randn(6, 3, 61, 52)
    found = list(compared(make(), images, rule, narrow=narrow))
    assert all(difference <= 1e-6 * largest for difference, largest, *_ in found)
    assert all(is_same for *_, is_same, _ in found)
    assert sum(is_window for *_, is_window in found) >= 20


def test_a_border_is_met():
    net = in_whole_numbers(Branching())
    images = torch.randint(-4, 5, (6, 3, 63, 88)).double()
    boxes = [view.box for layer, view in views_of(net, images, "guided") if layer.windows is not None]
    assert any(box.top == 0 for box in boxes)
    assert any(box.bottom == 63 for box in boxes)
    assert any(box.right == 88 for box in boxes)
