"""Occlusion and invariance in the terminal, and occlusion as a picture."""

import io

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from convscope.report.pictures.occlusion import occlusion_picture
from convscope.sight import InvariancePlan, OcclusionPlan, invariance, occlusion, project

NAME = "bad\x1b[2J[red]<b>"


def net():
    made = nn.Sequential()
    made.add_module(NAME, nn.Conv2d(3, 4, 3))
    made.add_module("rest", nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    return made


def shown(result, width=150):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(result)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 150])
def test_occlusion_says_what_was_hidden_and_what_changed(width):
    image = torch.zeros(3, 24, 20)
    image[:, 10:13, 3:6] = 5
    network = net()
    with torch.no_grad():
        network[0].weight.abs_()
    found = occlusion(network, image, 1, [(NAME, 2)], OcclusionPlan(5, 5, "zero", overhang=False))
    found = found.compared_with(project(network, image, NAME, 2, "gradient"))
    text = shown(found, width)
    assert "\x1b" not in text
    assert "1, as asked" in " ".join(text.split())
    assert "output 1 of 1" in " ".join(text.split())
    assert "gradient" in text
    # The window over the bright square: rows 10 to 14, columns 5 to 9 or 0 to 4.
    assert "rows 10, 14" in " ".join(text.split())


def test_a_network_without_classes_and_a_silent_unit():
    silent = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    nn.init.constant_(silent[0].bias, -100)
    text = shown(occlusion(silent, torch.rand(3, 12, 12), units=[("1", 0)]))
    assert "no class scores" in text
    assert "doesn't fire" in text


@pytest.mark.parametrize("width", [40, 150])
def test_invariance_has_a_table_for_each_transformation(width):
    plan = InvariancePlan((0, 2), (1, 1.5), ())
    text = shown(invariance(net(), torch.rand(3, 3, 20, 24), plan=plan), width)
    assert "\x1b" not in text
    assert "Translation" in text
    assert "Scale" in text
    assert "Rotation" not in text
    assert "100.0 %" in text


def test_the_picture_is_red_where_hiding_lowers_and_names_fit():
    image = torch.zeros(3, 24, 20)
    image[0, 8:12, 4:8] = 1
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = occlusion(network, image, 0, plan=OcclusionPlan(4, 4, "zero", overhang=False))
    grey = np.full((24, 20, 3), 100, np.uint8)
    drawn = np.asarray(occlusion_picture(found, grey, ["a" * 500, "b", "c"]))
    scale, left = 12, 10 + 298  # 288 / 24 pixels; the second panel
    inside, outside = drawn[10 + 10 * scale, left + 6 * scale], drawn[10 + 20 * scale, left + 15 * scale]
    assert inside[0] > inside[2] + 80
    assert np.ptp(outside.astype(int)) == 0
    assert drawn.shape[1] == 10 + 3 * 298
