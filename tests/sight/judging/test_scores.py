"""Scores are None where they can't be measured, whatever the picture."""

import pytest
import torch
from torch import nn

from convscope.sight import GalleryOptions, gallery, project


class Excited(nn.Module):
    """A squeeze-and-excitation block between two convolutions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.squeeze, self.excite, self.gate = nn.Conv2d(6, 4, 1), nn.Conv2d(4, 6, 1), nn.Sigmoid()
        self.head = nn.Conv2d(6, 5, 3, padding=1)

    def forward(self, x):
        x = nn.functional.silu(self.stem(x))
        gate = self.gate(self.excite(nn.functional.silu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.head(x * gate)


@pytest.fixture
def excited():
    torch.manual_seed(4)
    return Excited().double(), torch.rand(3, 3, 12, 14, dtype=torch.float64)


def test_a_gate_that_is_held_has_no_masking_drop(excited):
    net, images = excited
    view = project(net, images[0], "gate", 2, rule="gated")
    assert "masking_drop" in view.not_computed
    assert "unconfirmed-projection" not in [finding.fault for finding in view.findings]


@pytest.mark.parametrize(("layer", "rule"), [("squeeze", "gated"), ("gate", "gradient"), ("head", "gated")])
def test_what_is_before_a_held_gate_or_isnt_held_has_one(excited, layer, rule):
    """Below the gate nothing is held, under gradient nothing at all; above it the data path moves."""
    net, images = excited
    views = [project(net, images[0], layer, unit, rule) for unit in range(4)]
    drops = [view.scores.masking_drop for view in views if view.seed_value > 0]
    assert drops
    assert all(drop is not None and drop != 0 for drop in drops)


def test_a_gallery_of_gates_has_no_masking_drop(tmp_path, excited):
    net, images = excited
    found = gallery(net, images, ["excite", "head"], out=tmp_path / "out", options=GalleryOptions(judge=3))
    drops = {layer.name: layer.masking_drop for layer in found.layers}
    assert found.layers[0].unit_address.startswith("gate")
    assert drops["excite"] is None
    assert drops["head"] is not None
    assert "unconfirmed-projection" not in [f.fault for f in found.findings if f.address.startswith("gate")]


@pytest.mark.parametrize(("kernel", "is_known"), [((1, 1), False), ((1, 2), False), ((1, 3), True)])
def test_masking_less_than_half_of_a_patch_leaves_random_pixels_a_choice(kernel, is_known):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 4, kernel), nn.ReLU())
    nn.init.constant_(net[0].bias, 2.0)
    drop = project(net, torch.randn(3, 9, 9), "1", 0, rule="guided").scores.masking_drop
    assert (drop is not None) == is_known


def flat_view(rule="gated"):
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 6, 3), nn.SiLU(), nn.Conv2d(6, 6, 3), nn.SiLU(), nn.Conv2d(6, 4, 3)]
    net = nn.Sequential(*convolutions)
    nn.init.constant_(net[4].bias, 2.0)
    return project(
        net, torch.full((3, 21, 21), 0.7) * torch.tensor([1.0, 0.3, 0.1])[:, None, None], "4", 1, rule
    )


def test_a_flat_image_says_nothing_about_image_dependence():
    view = flat_view()
    assert view.scores.image_dependence is None
    assert view.scores.selectivity is not None
    assert "image-independent-projection" not in [finding.fault for finding in view.findings]


def test_rounding_is_no_masking_drop():
    """Greying a flat image out with its mean changes it by rounding alone."""
    assert flat_view().scores.masking_drop == 0.0
