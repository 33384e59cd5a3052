"""Blocks with parallel branches that the tests of merging share, and what they are compared by."""

import copy

import torch
from torch import nn

from convscope.fold.edits import carry_out
from convscope.fold.merge import merge_branches
from dispatched import DispatchedNames


class Block(nn.Module):
    """A block given by a function of itself and its input."""

    def __init__(self, forward, **modules):
        super().__init__()
        self._forward = forward
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self._forward(self, x)


def conv(kernel=3, channels=4, **options):
    options = {"padding": kernel // 2, **options}
    return nn.Conv2d(channels, channels, kernel, **options)


def bn(channels=4):
    return nn.BatchNorm2d(channels)


def scale(*shape):
    return nn.Parameter(torch.randn(shape) + 0.1)


def pair(**modules):
    return nn.Sequential(*modules.values())


def simple(**extra):
    """A block of a convolution and a batch norm side by side."""
    return Block(lambda s, x: s.a(x) + s.b(x), a=conv(), b=bn(), **extra)


def ran(model, x):
    """Return a model's output, the batch norms and convolutions that it really ran, and all operators."""
    with DispatchedNames() as seen, torch.no_grad():
        y = model(x)
    return y, seen.names.count("batch_norm"), seen.names.count("convolution"), seen.names


def noise(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def difference(y0, y):
    assert y0.shape == y.shape
    return ((y - y0).abs().max() / y0.abs().max()).item()


def merged_twin(model, shape):
    """Return a float64 copy of a model with its branches merged, and what was merged."""
    twin = copy.deepcopy(model).double()
    merged = merge_branches(twin, (noise(*shape),))
    carry_out(twin, merged.edits)
    return twin, merged


def assert_same(model, twin, *shapes):
    model = copy.deepcopy(model).double()
    for shape in shapes:
        x = noise(*shape)
        with torch.no_grad():
            assert difference(model(x.clone()), twin(x.clone())) < 1e-12
