"""Scores in a gallery are those of the unit alone, in its whole image, with as much effort."""

from unittest.mock import patch

import pytest
import torch
from torch import nn

from convscope.sight import gallery, project
from convscope.sight.judging import scores as judging
from convscope.sight.judging.trial import MANY_PICTURES

NAMES = ("selectivity", "image_dependence", "randomisation", "masking_drop")


class Gated(nn.Module):
    """Small receptive fields, squeeze-and-excitation, group norm and a layer that sees everything."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, 6)
        self.squeeze = nn.Conv2d(6, 6, 1)
        self.deep = nn.Conv2d(6, 8, 3, padding=1)
        self.deeper = nn.Conv2d(8, 5, 3, stride=2, dilation=4, padding=4)

    def forward(self, x):
        x = nn.functional.silu(self.norm(self.stem(x)))
        x = x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        return self.deeper(self.deep(x).relu()).relu()


def one_turn(image):
    return (image.flip(2, 3),)


@pytest.mark.parametrize("rule", ["gated", "gradient"])
def test_scores_are_those_of_the_unit_alone(tmp_path, rule):
    torch.manual_seed(3)
    net, images = Gated().double(), torch.rand(12, 3, 34, 41, dtype=torch.float64)
    found = gallery(net, images, top=2, out=tmp_path / "out", rule=rule)
    windows = [layer.window for layer in found.layers if layer.name == "deep"]
    assert windows == ([None] if rule == "gradient" else [(8, 9)])
    compared = 0
    with (
        patch.object(judging, "ONE_PICTURE", MANY_PICTURES),
        patch("convscope.sight.judging.trial.turns", one_turn),
    ):
        for layer in found.layers:
            for unit in layer.units:
                if not unit.examples or not layer.map_size[0] > 1:
                    continue
                best = unit.examples[0]
                view = project(net, images[best.image], layer.unit_address, unit.index, rule, best.position)
                for name in NAMES:
                    own, alone = getattr(unit.scores, name), getattr(view.scores, name)
                    assert own == (alone if alone is None else pytest.approx(alone, abs=1e-9))
                    compared += own is not None
    assert compared > 40


def test_every_unit_that_fires_is_judged_unless_told_otherwise(tmp_path):
    from convscope.sight.picturing.options import GalleryOptions

    net, images = Gated(), torch.rand(6, 3, 20, 22)
    for judge, count in (("all", 5), (2, 2), (0, 0)):
        out = tmp_path / str(judge)
        layer = gallery(net, images, out=out, options=GalleryOptions(judge=judge)).layers[-1]
        firing = sum(not unit.dead for unit in layer.units)
        assert sum(unit.scores is not None for unit in layer.units) == min(count, firing)
