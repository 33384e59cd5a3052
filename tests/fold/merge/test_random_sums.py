"""Random sums of random branches: whatever merges, the network computes the same."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fold.merge.branches import bn, conv, difference, merged_twin, noise, ran, scale

LEAVES = {
    "3x3": conv,
    "1x1": lambda: conv(1, bias=False),
    "depthwise": lambda: conv(groups=4),
    "grouped": lambda: conv(1, groups=2),
    "dilated": lambda: conv(3, padding=2, dilation=2),
    "bn": bn,
    "pool": lambda: nn.AvgPool2d(3, 1, 1),
    "identity": nn.Identity,
    "conv bn": lambda: nn.Sequential(conv(), bn()),
    "not linear": lambda: nn.Sequential(conv(1), nn.Sigmoid()),
}
OPERATIONS = {
    "add": lambda a, b, g: a + b,
    "sub": lambda a, b, g: a - b,
    "add_": lambda a, b, g: (a + 0).add_(b),
    "into": lambda a, b, g: a.add_(b),
    "scale": lambda a, b, g: a + g * b,
    "half": lambda a, b, g: a * 0.5 + b,
    "product": lambda a, b, g: a * b,
}
leaves = st.sampled_from(sorted(LEAVES))
trees = st.recursive(
    leaves, lambda below: st.tuples(st.sampled_from(sorted(OPERATIONS)), below, below), max_leaves=6
)


class Sum(nn.Module):
    """A block that computes a tree of branches, and a ReLU as a module or as a function."""

    def __init__(self, tree, nested, last):
        super().__init__()
        self.tree, self.branches, self.gains = tree, nn.ModuleList(), nn.ParameterList()
        self.last = nn.ReLU() if last else None
        self.plan = self._planned(tree, nested)

    def _planned(self, tree, nested):
        if isinstance(tree, str):
            self.branches.append(LEAVES[tree]())
            return len(self.branches) - 1
        operation, left, right = tree
        if nested and not isinstance(right, str):
            self.branches.append(Sum(right, False, True if nested > 1 else None))
            right = len(self.branches) - 1
        else:
            right = self._planned(right, nested)
        self.gains.append(scale(4, 1, 1))
        gain = len(self.gains) - 1
        return operation, self._planned(left, nested), right, gain

    def _value(self, plan, x):
        if isinstance(plan, int):
            branch = self.branches[plan](x)
            return branch.clone() if branch is x else branch
        operation, left, right, gain = plan
        a, b = self._value(left, x), self._value(right, x)
        return OPERATIONS[operation](a, b, self.gains[gain])

    def forward(self, x):
        out = self._value(self.plan, x)
        return out if self.last is None else self.last(out)


@pytest.mark.parametrize("nested", [0, 1, 2])
@settings(max_examples=40)
@given(tree=trees, last=st.booleans())
def test_random_sums_compute_the_same(nested, tree, last):
    torch.manual_seed(1)
    net = nn.Sequential(Sum(tree, nested, last), nn.Tanh(), conv(1)).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                module.weight.normal_()
                module.bias.normal_()
    twin, merged = merged_twin(net, (2, 4, 5, 4))
    before = copy.deepcopy(net).double()
    for shape in ((2, 4, 5, 4), (1, 4, 4, 4), (4, 4, 7, 6)):
        x = noise(*shape)
        y0, norms, convolutions, _ = ran(before, x)
        y, fewer_norms, fewer_convolutions, _ = ran(twin, x)
        assert difference(y0, y) < 1e-12
        gone = sum(len(found.batch_norms) for found in merged.sums)
        assert fewer_norms == norms - gone
        # a batch norm beside an average pool becomes a convolution with it
        assert fewer_norms + fewer_convolutions <= norms + convolutions
        if merged.sums:
            assert (fewer_norms, fewer_convolutions) < (norms, convolutions)
