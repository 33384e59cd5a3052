"""Windows give the same activation and projection as the whole image."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.sight import project
from convscope.sight.projecting.crops import cropping
from convscope.sight.projecting.projector import box_of
from convscope.tape import record
from convscope.tape.receptive_field import ReceptiveField, receptive_fields


class Skipping(nn.Module):
    """Odd strides, dilation, a skip, a concatenation, a pool with padding and one that rounds up."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 5, stride=(3, 2), padding=2)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=2, dilation=2)
        self.short = nn.Conv2d(4, 3, 1, stride=2)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = x + F.relu(self.conv2(x))
        pooled = F.max_pool2d(x, 3, 2, padding=1)
        return torch.cat([pooled, self.short(x)], 1)


@pytest.mark.parametrize("size", [(97, 83), (96, 84), (61, 90)])
def test_every_window_gives_the_whole_images_numbers(size):
    net = Skipping().double()
    image = torch.randn(2, *size, dtype=torch.float64)
    tape = record(net, image[None])
    field = receptive_fields(tape)[tape.outputs[0]]
    cut = cropping(field, size)
    assert cut is not None
    height, width = cut.size
    with torch.no_grad():
        maps = net(image[None])
    rows, columns = maps.shape[2:]
    for position in [
        (0, 0),
        (rows - 1, columns - 1),
        (rows // 2, 0),
        (1, columns - 1),
        (rows // 2, columns // 2),
    ]:
        window = cut.window(position)
        assert 0 <= window.top <= size[0] - height
        assert 0 <= window.left <= size[1] - width
        crop = image[:, window.top : window.top + height, window.left : window.left + width]
        for unit in (0, 5):
            whole = project(net, image, "self", unit, position=position)
            part = project(net, crop, "self", unit, position=window.position)
            assert part.seed_value == pytest.approx(whole.seed_value, rel=1e-12)
            full = torch.zeros_like(whole.image)
            full[window.top : window.top + height, window.left : window.left + width] = part.image
            torch.testing.assert_close(full, whole.image, rtol=1e-12, atol=1e-15)


def test_there_is_nothing_to_crop_for_large_fields_or_unknown_ones():
    assert cropping(None, (64, 64)) is None
    assert cropping(ReceptiveField((139, 139), (16, 16), (-49, -49)), (128, 128)) is None
    half = cropping(ReceptiveField((99, 7), (8, 2), (0, 0)), (100, 100))
    assert half is not None
    assert half.size == (100, 8)


@pytest.mark.parametrize(
    ("position", "box"),
    [
        ((0, 0), (0, 0, 6, 6)), ((1, 2), (1, 3, 8, 10)), ((63, 5), (125, 9, 128, 16)),
        ((70, 70), (127, 99, 128, 100)),
    ],
)  # fmt: skip
def test_boxes_are_clamped_to_the_image(position, box):
    field = ReceptiveField((7, 7), (2, 2), (-1, -1))
    found = box_of(field, position, (128, 100))
    assert (found.top, found.left, found.bottom, found.right) == box
    assert box_of(None, position, (128, 100)).height == 128


def test_windows_of_a_map_whose_margin_is_cut_off_have_margins_of_their_own():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.ZeroPad2d((-3, 0, -2, 0))).double()
    image = torch.randn(3, 31, 29, dtype=torch.float64)
    tape = record(net, image[None])
    cut = cropping(receptive_fields(tape)[tape.outputs[0]], (31, 29))
    assert cut is not None
    with torch.no_grad():
        maps = net(image[None])[0]
    for y, x in [(0, 0), (0, 7), (28, 25), (14, 3)]:
        window = cut.window((y, x))
        assert min(window.position) >= 0
        with torch.no_grad():
            part = net(cut.crops(image[None], [window]))[0]
        torch.testing.assert_close(part[:, *window.position], maps[:, y, x], rtol=1e-12, atol=0)
