"""Small random networks with several batch norms that hinder one another: in streams and branches."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

SHAPE = (2, 2, 5, 5)
CHANNELS = 2
_MOST_NORMS = 6


class Gain(nn.Module):
    """A constant per channel that is added, or multiplies."""

    def __init__(self, *, added):
        super().__init__()
        self.gain, self.added = nn.Parameter(torch.randn(CHANNELS, 1, 1)), added

    def forward(self, x):
        return x + self.gain if self.added else x * self.gain


class Drawn(nn.Module):
    """Steps on a list of values; each step reads some of them and adds one."""

    def __init__(self):
        super().__init__()
        self.steps, self.parts = [], nn.ModuleList()

    def forward(self, x):
        values = [x]
        for step in self.steps:
            values.append(step(self, values))
        return values[-1] if len(values) < 3 else values[-1] + values[-2]


def random_net(seed):
    """Return a network of up to six batch norms, with statistics of its own, some gammas negative."""
    rng = np.random.default_rng(seed)
    net, positive = Drawn(), rng.random() < 0.6
    num_norms = 0
    torch.manual_seed(seed)

    def run(module, at):
        number = len(net.parts)
        net.parts.append(module)
        net.steps.append(lambda s, v: s.parts[number](v[at]))

    while len(net.steps) < 14 and num_norms < _MOST_NORMS:
        at = max(0, len(net.steps) - int(rng.geometric(0.6)) + 1)
        other = int(rng.integers(0, len(net.steps) + 1))
        match rng.choice(
            ["norm", "norm", "norm", "conv", "conv", "relu", "add", "pad", "gain", "sigmoid", "pool"]
        ):
            case "norm":
                norm = _randomised(nn.BatchNorm2d(CHANNELS), rng, positive)
                run(norm, at)
                num_norms += 1
            case "conv":
                bias = bool(rng.random() < 0.9)
                run(nn.Conv2d(CHANNELS, CHANNELS, 1, bias=bias), at)
            case "pad":
                run(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), at)
            case "relu":
                net.steps.append(lambda s, v, at=at: F.relu(v[at]))
            case "add":
                net.steps.append(lambda s, v, at=at, other=other: v[at] + v[other])
            case "gain":
                run(Gain(added=rng.random() < 0.5), at)
            case "sigmoid":
                net.steps.append(lambda s, v, at=at: v[at].sigmoid())
            case "pool":
                net.steps.append(lambda s, v, at=at: F.max_pool2d(v[at], 3, 1, 1))
    return net.double().eval()


def _randomised(norm, rng, positive):
    gammas = rng.uniform(0.5, 1.5, CHANNELS) * (1 if positive else rng.choice([-1, 1], CHANNELS))
    with torch.no_grad():
        norm.weight.copy_(torch.from_numpy(gammas))
        norm.bias.copy_(torch.from_numpy(rng.normal(size=CHANNELS)))
        norm.running_mean.copy_(torch.from_numpy(rng.normal(size=CHANNELS)))
        norm.running_var.copy_(torch.from_numpy(rng.uniform(0.3, 2, CHANNELS)))
    return norm
