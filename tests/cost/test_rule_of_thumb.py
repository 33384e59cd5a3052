"""The notes' estimate of memory, by hand."""

import pytest
from torch import nn

from convscope.cost import cost
from convscope.tape import TrainingPlan


def _net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 2, 2, 2),
        nn.LocalResponseNorm(3), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 5),
    )  # fmt: skip


def test_only_convolution_linear_and_pooling_outputs_count():
    found = cost(_net(), (2, 3, 8, 8)).rule_of_thumb
    outputs = 2 * (4 * 36 + 2 * 144 + 2 * 36 + 2 + 5)
    assert found.activations == outputs
    assert found.activation_bytes == 2 * 4 * outputs


@pytest.mark.parametrize(
    ("plan", "per_activation", "per_parameter"),
    [
        (TrainingPlan("sgd"), 2, 2),
        (TrainingPlan("sgd-momentum"), 2, 3),
        (TrainingPlan("adam"), 2, 4),
        (None, 1, 1),
    ],
)
def test_values_per_number(plan, per_activation, per_parameter):
    net = _net()
    found = cost(net, (2, 3, 8, 8), plan).rule_of_thumb
    assert (found.values_per_activation, found.values_per_parameter) == (per_activation, per_parameter)
    assert found.parameter_bytes == per_parameter * 4 * sum(p.numel() for p in net.parameters())


def test_frozen_parameters_count_once_and_bfloat16_half():
    net = _net()
    net[0].requires_grad_(False)
    frozen = sum(p.numel() for p in net[0].parameters())
    rest = sum(p.numel() for p in net.parameters()) - frozen
    full = cost(net, (2, 3, 8, 8)).rule_of_thumb
    half = cost(net, (2, 3, 8, 8), TrainingPlan(precision="bf16")).rule_of_thumb
    assert full.parameter_bytes == 4 * (frozen + 3 * rest) == 2 * half.parameter_bytes
    assert full.activation_bytes == 2 * half.activation_bytes
