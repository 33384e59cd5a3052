"""Random networks of shared modules, tied weights, branches and in-place writes; equal sizes everywhere."""

import random

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from convscope.fold import fold

C = 4  # channels, batch, height and width alike: a wrong axis fits and shows in the numbers only
MAKERS = (
    lambda r: nn.Conv2d(C, C, 3, padding=1, bias=r.random() < 0.5),
    lambda r: nn.Conv2d(C, C, 1, groups=r.choice([1, 2, 4]), bias=r.random() < 0.5),
    lambda r: nn.ConvTranspose2d(C, C, 3, padding=1, groups=r.choice([1, 2, 4]), bias=r.random() < 0.5),
    lambda r: nn.Linear(C, C),
)
STEPS = {
    "add": lambda x, y, norm: x + y,
    "cat": lambda x, y, norm: torch.cat([x[:, :2], y[:, 2:]], 1),
    "clone": lambda x, y, norm: x.clone(),
    "dropout": lambda x, y, norm: F.dropout(x, 0.5, training=False),
    "function": lambda x, y, norm: F.batch_norm(
        x, norm.running_mean, norm.running_var, norm.weight, norm.bias
    ),
    "mul_": lambda x, y, norm: x.mul_(1.5),
    "relu": lambda x, y, norm: F.relu(x),
    "relu_": lambda x, y, norm: F.relu_(x),
    "transpose": lambda x, y, norm: x.transpose(2, 3),
}


class RandomNet(nn.Module):
    def __init__(self, seed):
        super().__init__()
        r = random.Random(seed)
        self.layers = nn.ModuleList(r.choice(MAKERS)(r) for _ in range(5))
        self.norms = nn.ModuleList(nn.BatchNorm2d(C, affine=r.random() < 0.8) for _ in range(5))
        first, second = self.layers[:2]
        if r.random() < 0.3 and first.weight.shape == second.weight.shape:
            second.weight = first.weight
        self.steps = []
        for _ in range(r.randint(2, 8)):
            if r.random() < 0.5:
                self.steps += [("layer", *self._sources(r)), ("norm", len(self.steps) + 1, 0, r.randrange(5))]
            else:
                self.steps.append((r.choice(sorted(STEPS)), *self._sources(r)))

    def _sources(self, r):
        last = len(self.steps)
        return (last if r.random() < 0.8 else r.randint(0, last)), r.randint(0, last), r.randrange(5)

    def forward(self, x):
        values = [x.clone()]
        for kind, source, other, index in self.steps:
            value = values[source]
            if kind == "layer":
                value = self.layers[index](value)
            elif kind == "norm":
                value = self.norms[index](value)
            else:
                value = STEPS[kind](value, values[other], self.norms[index])
            values.append(value)
        return values[-1]


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_random_networks_keep_their_function(seed, randomised):
    torch.manual_seed(seed)
    net = randomised(RandomNet(seed)).double()
    x = torch.randn(C, C, C, C, dtype=torch.float64)
    folded = fold(net, (C, C, C, C))
    with torch.no_grad():
        expected, given = net(x), folded.model(x)
    assert (given - expected).abs().max() <= 1e-12 * expected.abs().max()
    for entry in folded.ledger.entries:
        assert entry.reason or entry.verdict == "folded"
        assert "values differ" not in entry.reason, "the plan itself must be right, not only its proof"
