"""Findings about a gallery's layers hold for any activation."""

import pytest
import torch
from torch import nn

from convscope.sight import GalleryOptions, gallery


def found_in(folder, activation, biases, *, statistics=True):
    """What is found in a layer whose units have these biases and tiny weights, by their fault."""
    net = nn.Sequential(nn.Conv2d(1, len(biases), 3), activation)
    with torch.no_grad():
        net[0].weight.mul_(1e-3)
        net[0].bias.copy_(torch.tensor(biases))
    options = GalleryOptions(judge=0, statistics=statistics)
    found = gallery(net, torch.rand(4, 1, 8, 8), out=folder / "out", options=options)
    return {finding.fault: finding for finding in found.findings}


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.GELU(), nn.Identity(), nn.LeakyReLU()])
def test_units_that_pass_negative_values_on_are_not_to_be_pruned(tmp_path, activation):
    dead = found_in(tmp_path, activation, [2.0, -1.0, -1.5])["dead-units"]
    assert dead.severity == "advice"
    assert "they still pass negative values on" in dead.why
    assert "positive in none of 4 images" in dead.why
    assert "don't prune" in dead.remedy


def test_units_that_pass_nothing_on_are(tmp_path):
    dead = found_in(tmp_path, nn.ReLU(), [2.0, -1.0, -1.5])["dead-units"]
    assert dead.severity == "warning"
    assert "negative" not in dead.why
    assert "prune" in dead.remedy


def test_without_statistics_the_remedy_says_when_it_holds(tmp_path):
    dead = found_in(tmp_path, nn.SiLU(), [2.0, -1.0], statistics=False)["dead-units"]
    assert dead.severity == "warning"
    assert "after a ReLU" in dead.remedy


def test_gates_are_always_on_by_nature(tmp_path):
    assert "always-on-units" not in found_in(tmp_path / "sigmoid", nn.Sigmoid(), [2.0, -1.0])
    assert "always-on-units" in found_in(tmp_path / "relu", nn.ReLU(), [2.0, -1.0])
