"""What reads a value: every spelling of a ReLU, and what isn't one."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.checkup.measuring.flow import feeds_only_relus, norms_reading
from convscope.tape import record


class Net(nn.Module):
    def __init__(self, after):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.other = nn.BatchNorm2d(4)
        self.after = after

    def forward(self, x):
        return self.after(self.bn(self.conv(x)))


def _feeds(after):
    return feeds_only_relus(record(Net(after), (2, 3, 6, 5)), "bn#1:batch_norm.1")


@pytest.mark.parametrize(
    "after",
    [
        F.relu,
        torch.relu_,
        F.relu6,
        nn.ReLU6(inplace=True),
        lambda x: x.clamp(min=0),
        lambda x: x.clamp_min_(0),
        lambda x: F.threshold(x, 0.0, 0.0),
        lambda x: F.relu(x) + F.relu(x),
        lambda x: F.relu(F.dropout(x, 0.5, training=False)),
    ],
)
def test_relus(after):
    assert _feeds(after) is True


@pytest.mark.parametrize(
    "after",
    [
        lambda x: x,
        F.gelu,
        F.leaky_relu,
        lambda x: F.relu(x) + x,
        lambda x: F.relu(x + 1),
        lambda x: x.clamp(min=-1),
        lambda x: F.threshold(x, 0.0, 1.0),
        lambda x: (F.relu(x), x),
    ],
)
def test_not_only_relus(after):
    assert _feeds(after) is False


def test_an_unknown_call_has_no_answer():
    assert feeds_only_relus(record(Net(F.relu), (2, 3, 6, 5)), "bn#2:batch_norm.1") is None


def test_batch_norms_that_read_a_convolution():
    net = Net(F.relu)
    assert norms_reading(record(net, (2, 3, 6, 5)), "conv#1:convolution.1") == ("bn",)
    net.forward = lambda x: net.bn(y := net.conv(x)) + net.other(y)
    assert norms_reading(record(net, (2, 3, 6, 5)), "conv#1:convolution.1") == ("bn", "other")
    net.forward = lambda x: net.bn(y := net.conv(x)) + y
    assert norms_reading(record(net, (2, 3, 6, 5)), "conv#1:convolution.1") == ()
