"""Which places depend on which, on networks whose data flow is plain to see."""

import torch
from torch import nn

from convscope.fold.proof.upstream import Upstream
from convscope.tape import record
from fold.nets import Functional


def branched():
    """x → a → (b, c) → b + c → d, and a also reaches the output past all of them."""
    layers = {name: nn.Conv2d(3, 3, 1) for name in "abcd"}

    def forward(self, x):
        y = self.a(x)
        return self.d(torch.relu(self.b(y)) + self.c(y)), y

    return Functional(forward, **layers).eval()


def upstream(*names, net=None):
    return Upstream(record(net or branched(), (1, 3, 4, 4)), [f"{name}#1" for name in names])


def test_the_nearest_places_and_none_behind_them():
    found = upstream(*"abcd")
    assert found.of("d#1") == {"b#1", "c#1"}
    assert found.of("b#1") == found.of("c#1") == {"a#1"}
    assert found.of("a#1") == set()
    assert found.of_outputs() == {"a#1", "d#1"}
    assert upstream("a", "d").of("d#1") == {"a#1"}


def test_firsts():
    found = upstream(*"abcd")
    assert found.firsts({"b#1", "c#1", "d#1"}) == {"b#1", "c#1"}
    assert found.firsts({"a#1", "d#1"}) == {"a#1"}  # though neither is the nearest of the other
    assert found.firsts({"d#1"}) == {"d#1"}


def test_a_place_around_another_one_depends_on_it():
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()), nn.Conv2d(3, 3, 1)).eval()
    found = Upstream(record(net, (1, 3, 4, 4)), ["0#1", "0.0#1", "1#1"])
    assert found.of("0#1") == {"0.0#1"}
    assert found.of("1#1") == {"0#1"}


def test_writes_in_place_are_followed():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1)).eval()
    assert upstream("0", "2", net=net).of("2#1") == {"0#1"}


def test_without_a_recording_nothing_depends_on_anything():
    found = Upstream(None, ["a#1", "b#1"])
    assert found.of("b#1") == set()
    assert found.of_outputs() == found.firsts({"a#1", "b#1"}) == {"a#1", "b#1"}
