"""Which batch norm operators normalise samples, in every spelling of those that don't."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.tape import record
from convscope.tape.batch_norms import depends_on_inputs, normalises_samples


class Net(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self._forward = forward
        self.weight = nn.Parameter(torch.randn(3, 3))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("var", torch.ones(3))

    def forward(self, x):
        return self._forward(self, x)


def _adaptive(s, x):
    mean, var = s.mean.repeat(x.shape[0]), s.var.repeat(x.shape[0])
    return F.batch_norm(x.contiguous().view(1, -1, *x.shape[2:]), mean, var, training=True).view_as(x)


def _written(s, x):
    made = torch.zeros_like(s.weight)
    made[0] = x.mean((0, 2, 3))
    return F.batch_norm(made, None, None, training=True)


SAMPLES = {
    "eval": lambda s, x: F.batch_norm(x, s.mean, s.var),
    "train": lambda s, x: F.batch_norm(x, None, None, training=True),
    "flat": lambda s, x: F.batch_norm(x.flatten(2), None, None, training=True),
    "same-view": lambda s, x: F.batch_norm(x.view(x.shape), s.mean, s.var),
    "mixed-with-weights": lambda s, x: F.batch_norm(x.mean((2, 3)) + s.weight[:1], s.mean, s.var),
    "written-in-part": _written,
    "constant-with-statistics": lambda s, x: F.batch_norm(s.weight, s.mean, s.var),
}
OTHERS = {
    "weights": lambda s, x: x * F.batch_norm(s.weight.reshape(1, 3, -1), None, None, training=True).sum(),
    "scaled-weights": lambda s, x: F.batch_norm(s.weight * 2, None, None, training=True).sum() + x,
    "instance": lambda s, x: F.instance_norm(x),
    "instance-not-contiguous": lambda s, x: F.instance_norm(x.transpose(2, 3)),
    "instance-running": lambda s, x: F.instance_norm(x, s.mean, s.var, use_input_stats=False),
    "instance-by-hand": _adaptive,
}


def _answer(forward, number):
    tape = record(Net(forward), (number, 3, 6, 5))
    (call,) = (call for call in tape.calls if call.op == "batch_norm")
    return normalises_samples(tape, call)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("name", SAMPLES)
def test_samples(name, number):
    assert _answer(SAMPLES[name], number)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("name", OTHERS)
def test_others(name, number):
    assert not _answer(OTHERS[name], number)


def test_dependence_follows_views_and_writes():
    tape = record(Net(lambda s, x: (x[0] + s.weight[0, 0], s.weight.t() * 2)), (2, 3, 6, 5))
    assert [depends_on_inputs(tape, value) for value in tape.outputs] == [True, False]
