import math

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from convscope.checkup.watching.weights import Weights, multiplied_by


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.bn = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)
        self.bn2 = nn.BatchNorm1d(5)

    def parts(self, x):
        first = self.conv(x)
        second = self.fc(torch.relu(self.bn(first)).mean((2, 3)))
        return first, second, self.bn2(second)


@pytest.mark.parametrize("make", [lambda p: SGD(p, 0.3, momentum=0.9), lambda p: Adam(p, 0.01)])
def test_against_copies_of_everything(make):
    net = Net().double()
    optimizer, weights = make(net.parameters()), Weights(net)
    steps, cosines = [], []
    for _ in range(5):
        first, second, out = net.parts(torch.randn(8, 3, 6, 5, dtype=torch.float64))
        weights.norm("bn", first)
        weights.norm("bn2", second)
        optimizer.zero_grad()
        (out * torch.randn_like(out)).sum().backward()
        before, gradient = net.conv.weight.detach().clone(), net.conv.weight.grad.clone()
        weights.step_begins(optimizer)
        optimizer.step()
        weights.step_ends()
        steps.append(float((net.conv.weight.detach() - before).norm() / before.norm()))
        cosines.append(abs(float((before * gradient).sum() / before.norm() / gradient.norm())))
        if len(steps) == 1:
            start = float(before.norm())
    conv, fc = weights.found()
    assert (conv.name, conv.norm, fc.name, fc.norm) == ("conv.weight", "bn", "fc.weight", "bn2")
    assert conv.update == pytest.approx(sorted(steps[2:])[1], rel=1e-5)  # the later half's median
    assert conv.end == pytest.approx(float(net.conv.weight.detach().norm()), rel=1e-6)
    assert conv.start == pytest.approx(start, rel=1e-6)
    assert conv.invariance == pytest.approx(sorted(cosines)[2], abs=1e-6)
    assert conv.invariance < 1e-3 * conv.chance  # up to ε of the batch norm
    assert conv.num_steps == 5


def test_large_weights_are_measured_by_some_filters():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2000, 300), nn.BatchNorm1d(300))
    optimizer, weights = SGD(net.parameters(), 0.5), Weights(net)
    x = net[0](torch.randn(16, 2000))
    weights.norm("1", x)
    before = net[0].weight.detach().clone()
    (net[1](x) * torch.randn(16, 300)).sum().backward()
    weights.step_begins(optimizer)
    optimizer.step()
    weights.step_ends()
    (found,) = weights.found()
    assert found.chance == (32 * 2000) ** -0.5
    exact = float((net[0].weight.detach() - before).norm() / before.norm())
    assert found.update == pytest.approx(exact, rel=0.15)


def test_what_made_an_input():
    conv, x = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 5, 5)
    assert multiplied_by(torch.relu(conv(x)).grad_fn) == ()
    with torch.autocast("cpu", torch.bfloat16):
        (weight,) = multiplied_by(conv(x).grad_fn)
    assert weight is conv.weight
    leaf = torch.randn(2, 3, requires_grad=True)
    linear = nn.Linear(3, 4, bias=False)
    assert {id(t) for t in multiplied_by(linear(leaf).grad_fn)} == {id(leaf), id(linear.weight)}


def test_frozen_weights_and_other_optimizers_are_left_out():
    net = Net()
    weights, other = Weights(net), SGD([nn.Parameter(torch.ones(2))], 0.1)
    first, _, out = net.parts(torch.randn(8, 3, 6, 5))
    weights.norm("bn", first)
    out.sum().backward()
    weights.step_begins(other)
    weights.step_ends()
    assert weights.found() == ()
    net.zero_grad()
    mine = SGD(net.parameters(), 0.0)
    weights.step_begins(mine)
    weights.step_ends()
    assert weights.found() == ()
    net.parts(torch.randn(8, 3, 6, 5))[2].sum().backward()
    weights.step_begins(mine)
    weights.step_ends()
    (found,) = weights.found()
    assert math.isnan(found.update)  # a learning rate of 0 says nothing
    assert weights.latest() == {}
