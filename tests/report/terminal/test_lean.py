"""What is said of a lean forward pass."""

import json
import warnings

import torch
from torch import nn

import convscope as cs


def _savings(net, *shape):
    with cs.norm.lean(net) as handle, warnings.catch_warnings(action="ignore"):
        net(torch.ones(shape))
    return handle.savings


def test_layers_and_totals_add_up():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
    found = _savings(net, 2, 3, 18, 18)
    lines = str(found).splitlines()
    assert lines[0] == "Saved for the backward pass: 23.7 KiB in place of 39.7 KiB (0.60×)"
    assert [line.split() for line in lines if line.startswith(("2 ", "Total"))] == [
        ["2", "16.0", "KiB", "32", "B", "0.00×"],
        ["Total", "39.7", "KiB", "23.7", "KiB", "0.60×"],
    ]
    assert "made again" not in str(found)
    told = json.loads(found.to_json())
    assert (told["bytes_without"], told["bytes_kept"], len(told["layers"])) == (40608, 24256, 3)


def test_nothing_saved_is_said():
    assert "no tensor that it keeps can be made again" in str(_savings(nn.Linear(3, 4), 2, 3))
