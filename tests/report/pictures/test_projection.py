"""The picture of a projection: the frame lies around what the unit sees, the other half is the projection."""

import numpy as np
import pytest
import torch
from torch import nn

from convscope.report.pictures.panels import PANEL
from convscope.report.pictures.projection import projection_picture
from convscope.sight import as_picture, project


@pytest.mark.parametrize("size", [(24, 20), (300, 310)])
def test_the_frame_and_the_projection(size):
    net = nn.Sequential(nn.Conv2d(3, 4, 5), nn.SiLU())
    view = project(net, torch.rand(3, *size), "1", 2, position=(7, 3))
    sheet = np.asarray(projection_picture(view, np.zeros((*size, 3), np.uint8))).astype(int)
    scale = PANEL / max(size)
    left = sheet[10 : 10 + round(size[0] * scale), 10 : 10 + round(size[1] * scale)]
    rows, columns = ((left - [255, 80, 0]) == 0).all(2).nonzero()
    edges = [rows.min() / scale, rows.max() / scale, columns.min() / scale, columns.max() / scale]
    assert edges == pytest.approx([7, 12, 3, 8], abs=2)
    expected = as_picture(view.image)
    y, x = 9, 5  # a pixel that the unit sees
    shown = sheet[10 + int((y + 0.5) * scale), 20 + PANEL + int((x + 0.5) * scale)]
    assert abs(shown - expected[y, x]).max() <= 1
    assert abs(expected[y, x].astype(int) - 128).max() > 5
