from typing import get_args

import pytest
import torch
from torch import nn

from convscope.sight import Scores, project
from convscope.sight.judging.remarks import remarks_on
from convscope.sight.projecting.projection import Census, Rule

DEEP = Census(("1", "2"), (), (), (), (), (), 4, 3)


def told(rule="guided", census=DEEP, value=1.0, **scores):
    return [finding.fault for finding in remarks_on("layer", rule, census, Scores(**scores), value)]


@pytest.mark.parametrize(
    ("scores", "faults"),
    [
        ({}, []),
        ({"selectivity": 0.5, "image_dependence": 0.9, "randomisation": 0.8, "masking_drop": 0.3}, []),
        ({"selectivity": 0.19}, ["unselective-projection"]),
        ({"image_dependence": 0.01}, ["image-independent-projection"]),
        ({"randomisation": 0.05}, ["insensitive-to-training"]),
        ({"masking_drop": 0.0}, ["unconfirmed-projection"]),
        ({"masking_drop": -0.2}, ["unconfirmed-projection"]),
    ],
)
def test_each_score_has_its_remark(scores, faults):
    assert told(**scores) == faults


@pytest.mark.parametrize(
    ("rule", "other"),
    [("deconvnet", "gated"), ("guided", "gradient"), ("gated", "gradient"), ("gradient", None)],
)
def test_the_remedy_of_image_independence_is_another_rule(rule, other):
    found = remarks_on("layer", rule, DEEP, Scores(image_dependence=0.0), 1.0)
    (remedy,) = (each.remedy for each in found if each.fault == "image-independent-projection")
    assert [name for name in get_args(Rule) if f"'{name}'" in remedy] == ([other] if other else [])


def test_a_unit_that_does_not_fire_is_told():
    assert told(value=0.0) == ["silent-unit"]


def resnet_like():
    """One pool, after the stem."""
    trunk = [layer for _ in range(3) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())]
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), *trunk)


def test_a_deconvnet_above_the_only_pool_is_told_to_be_a_template():
    net, image = resnet_like(), torch.randn(3, 16, 16)
    faults = [f.fault for f in project(net, image, "8", 1, rule="deconvnet").findings]
    assert "template-projection" in faults
    assert "template-projection" not in [f.fault for f in project(net, image, "8", 1, rule="guided").findings]


def test_and_it_is_one():
    """The signal at the pool's output is the same for all images: the network above it, looked at alone."""
    above = resnet_like()[3:]
    views = [project(above, torch.rand(4, 7, 7), "5", 1, "deconvnet", position=(3, 3)).image for _ in "ab"]
    assert torch.equal(*views)
