"""What a unit sees, in the terminal."""

from dataclasses import replace

import pytest
import torch

from convscope.report.wording.addresses import operator_label
from convscope.sight import Box, project
from convscope.sight.picturing.album import Example


def _line(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line


def test_a_layer_whose_field_is_no_window_sees_the_image_or_differs(gallery):
    def seen(*boxes):
        examples = tuple(Example(n, "", 1.0, (0, 0), Box(*box)) for n, box in enumerate(boxes))
        unit = replace(gallery.layers[0].units[0], examples=examples)
        layer = replace(gallery.layers[0], name="alone", receptive_field=None, units=(unit,))
        return _line(str(replace(gallery, layers=(layer,))), "alone").split()

    height, width = gallery.image_size
    whole = (0, 0, height, width)
    assert "image" in seen(whole, whole)
    assert "varies" in seen(whole, (0, 0, height, width - 1))
    assert "varies" in seen((1, 0, height, width))
    assert not {"image", "varies"} & set(seen())
    assert "image" not in _line(str(gallery), "conv1").split()


def test_a_projection_says_the_same():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3))
    found = project(net, torch.rand(3, 12, 10), "2", 0)
    assert "5 × 5 pixels, every 1 × 1" in _line(str(found), "receptive field")
    missing = replace(found, receptive_field=None)
    assert "differs by position" in _line(str(missing), "receptive field")
    whole = replace(missing, box=Box(0, 0, 12, 10))
    assert "the whole image" in _line(str(whole), "receptive field")


@pytest.mark.parametrize(
    ("name", "address", "label"),
    [
        ("layer1.pool", "layer1.pool#1:max_pool2d_with_indices.1", "layer1.pool"),
        ("self#1:max_pool2d_with_indices.1", "self#1:max_pool2d_with_indices.1", "max_pool2d.1"),
        ("block#1:avg_pool2d.2", "block#1:avg_pool2d.2", "block: avg_pool2d.2"),
        ("block#3:convolution.1", "block#3:convolution.1", "block (call 3): convolution.1"),
    ],
)
def test_operators_at_an_axis(name, address, label):
    assert operator_label(name, address) == label
