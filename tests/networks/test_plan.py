"""The arithmetic of maps, against PyTorch's own layers."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convscope.networks import alexnet, last_map, minimum_size, zfnet
from convscope.networks.alexnet import alexnet_plan
from convscope.networks.plan import LayerChoices, Plan
from convscope.networks.zfnet import ZFNET_PLAN

PLANS = [alexnet_plan("notes"), alexnet_plan("torchvision"), ZFNET_PLAN]
BUILT = {}


@pytest.mark.parametrize("pool", ["overlapping", "non-overlapping"])
@pytest.mark.parametrize("number", range(3))
@settings(max_examples=15, deadline=None)
@given(height=st.integers(67, 260), width=st.integers(67, 260))
def test_arithmetic_agrees_with_the_layers(number, pool, height, width):
    plan = PLANS[number].with_options("none", 2, None, {"pool": pool})
    if (number, pool) not in BUILT:
        build = (lambda **o: alexnet("notes", **o), lambda **o: alexnet("torchvision", **o), zfnet)[number]
        BUILT[number, pool] = build(norm="none", width=0.01, num_classes=2, pool=pool)
    left = BUILT[number, pool].features(torch.zeros(1, 3, height, width))
    assert left.shape[2:] == (last_map(plan, height), last_map(plan, width))


def test_minimum_is_the_smallest_side_that_pytorch_accepts():
    for builder, smallest in ((alexnet, 67), (zfnet, 47)):
        model = builder(norm="none", width=0.01, num_classes=2)
        assert minimum_size(model.plan) == smallest
        model.features(torch.zeros(1, 3, smallest, smallest))
        with pytest.raises(RuntimeError):
            model.features(torch.zeros(1, 3, smallest - 1, smallest - 1))


@given(st.floats(0.001, 4.0))
def test_widths_are_even_and_near_what_was_asked(width):
    scaled = alexnet_plan("published").scaled(width)
    for before, after in zip(alexnet_plan("published").convolutions, scaled.convolutions, strict=True):
        assert after.channels % 2 == 0
        assert after.channels >= 2
        assert abs(after.channels - before.channels * width) <= 2
    assert scaled.num_classes == 1000


def test_layer_choices_are_fields_of_a_plan():
    assert set(LayerChoices.__annotations__) <= set(Plan.__dataclass_fields__)


def test_networks_survive_copying_and_pickling():
    model = alexnet(width=0.02, input_size=67, num_classes=2).eval()
    x = torch.randn(1, 3, 67, 67)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.plan == model.plan
        assert torch.equal(other(x), model(x))
