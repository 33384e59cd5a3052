"""Which values are the same in every run, and their numbers, against those of the network when it runs."""

import copy

import pytest
import torch
from torch import nn

from convscope.fold.recorded.constants import Constants
from convscope.fold.recorded.flow import Flow, Stays
from convscope.tape import record
from fold.nets import Functional

SHAPE = (2, 3, 4, 4)


def held():
    torch.manual_seed(1)
    net = Functional(None, conv=nn.Conv2d(3, 3, 1), bn=nn.BatchNorm2d(3))
    net.gain = nn.Parameter(torch.randn(3, 1, 1))
    net.register_buffer("order", torch.tensor([2, 0, 1]))
    net.register_buffer("count", torch.ones(()))
    return net


def constants_of(forward):
    """The constants of a network which returns one value, and that value's index."""
    net = held()
    net._forward = forward
    tape = record(net.eval(), SHAPE, device="cpu")
    return Constants(Flow(tape, net)), tape.outputs[0], net


KNOWN = {
    "parameter": lambda s, x: s.gain,
    "view of one": lambda s, x: s.gain.view(1, 3),
    "computed": lambda s, x: (1 + s.gain).exp() * s.bn.running_var.sqrt(),
    "standardised": lambda s, x: (s.conv.weight - s.conv.weight.mean()) / s.conv.weight.std(),
    "cut and put together": lambda s, x: torch.cat([s.gain[1:], 2 * s.gain[:1]]),
    "picked": lambda s, x: s.gain[s.order],
    "of several results": lambda s, x: s.gain.flatten().split(2)[1] * s.gain.max(0)[0],
    "new": lambda s, x: torch.ones(3) * torch.arange(3),
    "written to": lambda s, x: torch.zeros(3, 1, 1).copy_(s.gain).mul_(2),
    "cast": lambda s, x: s.gain.half().float() * 3,
}


@pytest.mark.parametrize("name", KNOWN)
def test_numbers_are_those_of_a_run(name):
    constants, value, net = constants_of(KNOWN[name])
    assert constants.holds(value)
    made = constants.numbers(value)
    expected = copy.deepcopy(net).double()(torch.randn(SHAPE, dtype=torch.float64))
    assert made.dtype == torch.float64 or not made.is_floating_point()
    assert torch.allclose(made.double(), expected.double(), rtol=1e-3 if name == "cast" else 1e-6)


def test_whole_numbers_stay_whole():
    constants, value, net = constants_of(lambda s, x: s.order.flip(0))
    assert torch.equal(constants.numbers(value), net.order.flip(0))


def test_numbers_are_not_the_networks_own():
    constants, value, net = constants_of(lambda s, x: s.gain)
    constants.numbers(value).add_(1)
    assert not torch.equal(net.gain.double(), constants.numbers(value))
    torch.manual_seed(1)
    assert torch.equal(net.gain, held().gain)


def test_what_is_written_to_later_keeps_its_numbers():
    def forward(s, x):
        memory = s.gain.clone()
        before = memory + 0
        memory.mul_(2)
        return before, memory

    constants, before, net = constants_of(forward)
    after = constants._flow.tape.outputs[1]
    assert torch.equal(constants.numbers(after), 2 * net.gain.double())
    assert torch.equal(constants.numbers(before), net.gain.double())


def counted(s, x):
    s.count.add_(1)
    return s.count * s.gain


VARYING = {
    "data": lambda s, x: x,
    "computed from data": lambda s, x: s.gain * x.mean(),
    "random": lambda s, x: s.gain * torch.rand(3, 1, 1),
    "normal": lambda s, x: s.gain + torch.zeros(3, 1, 1).normal_(),
    "exponential": lambda s, x: s.gain + torch.zeros(3, 1, 1).exponential_(),
    "geometric": lambda s, x: s.gain + torch.zeros(3, 1, 1).geometric_(0.5),
    "cauchy": lambda s, x: s.gain + torch.zeros(3, 1, 1).cauchy_(),
    "permutation": lambda s, x: s.gain[torch.randperm(3)],
    "draws": lambda s, x: torch.multinomial(torch.ones(3), 2).float(),
    "memory as it is found": lambda s, x: torch.empty(3) * s.gain,
    "a counter": counted,
}


@pytest.mark.parametrize("name", VARYING)
def test_what_varies_is_no_constant(name):
    constants, value, _ = constants_of(VARYING[name])
    assert not constants.holds(value)


def test_numbers_in_the_code_are_not_known():
    constants, value, _ = constants_of(lambda s, x: s.gain * torch.tensor([1.0, 2.0, 3.0])[:, None, None])
    if constants.holds(value):
        with pytest.raises(Stays, match="numbers aren't known"):
            constants.numbers(value)


def test_a_part_of_a_parameter_written_to_elsewhere():
    constants, value, net = constants_of(lambda s, x: s.gain[1:])
    assert torch.equal(constants.numbers(value), net.gain.detach()[1:].double())


@pytest.mark.parametrize("depth", [3000])
def test_chains_longer_than_pythons_stack(depth):
    def chain(s, x):
        y = s.gain
        for _ in range(depth):
            y = y * 0.999
        for _ in range(depth):
            x = x + 1
        return y, x

    constants, value, net = constants_of(chain)
    tape = constants._flow.tape
    assert constants.holds(value)
    assert not constants.holds(tape.outputs[1])
    assert torch.allclose(constants.numbers(value), net.gain.double() * 0.999**depth)
