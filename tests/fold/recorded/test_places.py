"""Modules are found wherever a network holds them, registered or not."""

from collections import OrderedDict
from typing import NamedTuple

import pytest
from torch import nn

from convscope.fold.recorded.places import places_of_modules


class Pair(NamedTuple):
    first: nn.Module
    second: nn.Module


HOLDERS = {
    "a list": lambda a, b: [a, 1, b],
    "a tuple": lambda a, b: (a, "name", b),
    "a named tuple": Pair,
    "a dict": lambda a, b: {"a": a, 3: b},
    "an ordered dict": lambda a, b: OrderedDict(a=a, b=b),
    "lists in lists": lambda a, b: [[a], [[b, None]]],
    "pairs in a list": lambda a, b: [(a, b), (b, a)],
    "a list in a tuple": lambda a, b: ((1, [a]), b),
    "a dict of tuples": lambda a, b: {"x": (a, (b, a))},
}


def flat(held):
    """Everything that lies in a container, in order."""
    if isinstance(held, dict):
        held = list(held.values())
    return [each for item in held for each in flat(item)] if isinstance(held, list | tuple) else [held]


def shape_of(held):
    if isinstance(held, dict):
        return type(held), [(key, shape_of(item)) for key, item in held.items()]
    return (type(held), [shape_of(item) for item in held]) if isinstance(held, list | tuple) else None


@pytest.mark.parametrize("name", HOLDERS)
def test_a_module_is_replaced_wherever_it_is_held(name):
    net = nn.Sequential(nn.ReLU(), nn.Tanh())
    a, b = net
    net.held = HOLDERS[name](a, b)
    held, shape, before = net.held, shape_of(net.held), flat(net.held)
    new = {id(a): nn.GELU(), id(b): nn.SiLU()}
    places = places_of_modules(net)
    for old, module in new.items():
        for place in places[old]:
            place.hold(module)
    assert flat(net.held) == [new.get(id(item), item) for item in before]
    assert shape_of(net.held) == shape
    assert (net.held is held) is not isinstance(held, tuple), "lists and dicts stay themselves"
    assert list(net) == list(new.values())


def test_a_list_that_holds_itself_and_one_that_two_modules_share():
    net = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh()))
    shared = [net[0]]
    shared.append(shared)
    net.steps = net[1].steps = shared
    assert [place.key for place in places_of_modules(net)[id(net[0])]] == ["0", 0]


def test_a_parent_that_a_child_knows_is_one_of_the_places():
    net = nn.Sequential(nn.Sequential(nn.ReLU()))
    child, made = net[0][0], nn.Tanh()
    child.__dict__["parent"] = net[0]
    for place in places_of_modules(net)[id(net[0])]:
        place.hold(made)
    assert net[0] is child.parent is made


class Strict(tuple):
    """A tuple that is made in a way of its own."""

    __slots__ = ()

    def __new__(cls, first, second):
        return super().__new__(cls, (first, second))


class Frozen(dict):
    """A dict that can't be written to."""

    def __setitem__(self, key, value):
        raise TypeError


@pytest.mark.parametrize("hold", [lambda a, b: Strict(a, b), lambda a, b: Frozen(a=a, b=b)])
def test_what_cant_be_written_like_a_plain_container_is_left_out(hold):
    net = nn.Sequential(nn.ReLU(), nn.Tanh())
    net.held = hold(*net)
    assert [len(places) for places in places_of_modules(net).values()] == [1, 1]


def test_modules_that_are_registered_nowhere_are_looked_into():
    net = nn.Sequential(nn.ReLU())
    net.steps = [nn.Sequential(net[0])]
    assert len(places_of_modules(net)[id(net[0])]) == 2
