"""The work of a reading grows with the number of operators, not with its square: Python's calls, counted."""

import sys

import pytest
import torch
from torch import nn

from convscope.cost.reading import cost_of
from convscope.tape import TrainingPlan, record


class OneModule(nn.Module):
    """Many operators of one module."""

    def __init__(self, num_operators):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.num_operators = num_operators

    def forward(self, x):
        for _ in range(self.num_operators // 2):
            x = x * self.weight + self.weight
        return x


class Constants(OneModule):
    """Many constants, each made where it is read."""

    def forward(self, x):
        x = x * self.weight
        for _ in range(self.num_operators):
            x = x * torch.tensor([1.0, 2.0, 3.0, 4.0])
        return x


class OneBuffer(nn.Module):
    """Many parameters in one storage."""

    def __init__(self, num_operators):
        super().__init__()
        flat = torch.ones(4 * num_operators)
        self.parts = nn.ParameterList(
            nn.Parameter(flat[4 * number : 4 * number + 4]) for number in range(num_operators)
        )

    def forward(self, x):
        for part in self.parts:
            x = x * part
        return x


def _python_calls(tape, plan):
    calls = 0

    def count(_frame, event, _argument):
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        cost_of(tape, plan)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("plan", [None, TrainingPlan("sgd")], ids=["inference", "training"])
@pytest.mark.parametrize("network", [OneModule, Constants, OneBuffer])
def test_four_times_the_operators_take_four_times_the_calls(network, plan):
    few, many = (_python_calls(record(network(size), (2, 4), plan), plan) for size in (100, 400))
    assert many < 4.5 * few
