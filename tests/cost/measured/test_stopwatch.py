"""Laps by hand: a clock that moves only when a module says so."""

import torch
from torch import nn

from convscope.cost.measured.stopwatch import Clock, Stopwatch


class Hand(Clock):
    """A clock that stands still until it is moved."""

    time = 0.0

    def now(self):
        return Hand.time

    def between(self, begin, end):
        return end - begin


class Waiting(nn.Module):
    """Lets time pass before its child, in its child and after it."""

    def __init__(self, child=None):
        super().__init__()
        self.child = child

    def forward(self, x):
        Hand.time += 10
        if self.child is not None:
            x = self.child(x)
            Hand.time += 5
        return x * 2


def test_own_time_of_nested_calls():
    net = Waiting(nn.Sequential(Waiting(), Waiting()))
    watch = Stopwatch(net, Hand())
    x = torch.ones(1)
    for _ in range(2):
        with watch.watching("forward"):
            Hand.time += 1
            net(x)
        laps = watch.laps()
        assert laps.modules == {
            ("self#1", False): 15,
            ("child#1", False): 0,
            ("child.0#1", False): 10,
            ("child.1#1", False): 10,
        }
        assert laps.phases == {"forward": 36}
        addresses = [str(site.address) for site, _ in laps.operators]
        assert addresses == ["child.0#1:mul.1", "child.1#1:mul.1", "self#1:mul.1"]


def test_operators_take_what_passes_while_they_run():
    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.neg()

        @staticmethod
        def backward(ctx, gradient):
            Hand.time += 7
            return gradient.exp()

    net = nn.Identity()
    watch = Stopwatch(net, Hand())
    x = torch.ones(2, requires_grad=True)
    with watch.watching("forward"):
        y = Slow.apply(net(x))
    with watch.watching("backward"):
        y.sum().backward()
    with watch.watching("optimizer", operators=False):
        Hand.time += 3
        torch.ones(1)
    laps = watch.laps()
    assert laps.phases == {"forward": 0, "backward": 7, "optimizer": 3}
    assert laps.net("backward") == 7
    assert sum(seconds for _, seconds in laps.operators) == 0
    assert [site.op for site, _ in laps.operators if site.phase == "backward"][-1] == "exp"
    assert not any(site.phase == "optimizer" for site, _ in laps.operators)
