"""Which correction a layer gets back, asked for in the forward pass and from within a backward pass."""

import gc

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from convscope.norm.engine import recomputing
from convscope.norm.engine.recomputing import KEPT, as_at_first
from convscope.norm.engine.statistics import moments


def batch(number):
    return moments(torch.full((2, 3), float(number)) + torch.randn(2, 3), (0,))


def correction(number):
    return torch.full((3,), float(number)), torch.full((3,), -float(number))


def in_backward(function):
    """Return what a function returns when backward calls it, as it calls a checkpointed block."""
    found, x = [], torch.zeros(1, requires_grad=True)
    y = x * 2
    y.register_hook(lambda _: found.append(function()))
    y.backward()
    return found[0]


def value(pair):
    r, d = pair
    assert torch.equal(r, -d)
    return r[0].item()


def test_a_forward_pass_uses_its_own_and_a_second_one_that_of_the_first():
    layer, other = nn.Identity(), nn.Identity()
    batches = [batch(number) for number in range(3)]
    for number, found in enumerate(batches):
        assert value(as_at_first(layer, found, correction(number))) == number
    for number in (2, 0, 1, 1):  # in any order, as often as wanted
        assert value(in_backward(lambda n=number: as_at_first(layer, batches[n], correction(9)))) == number
    assert value(in_backward(lambda: as_at_first(layer, batch(7), correction(9)))) == 9
    assert value(in_backward(lambda: as_at_first(other, batches[0], correction(9)))) == 9


def test_of_batches_seen_twice_the_last_counts():
    layer, found = nn.Identity(), batch(0)
    as_at_first(layer, found, correction(1))
    as_at_first(layer, found, correction(2))
    assert value(in_backward(lambda: as_at_first(layer, found, correction(9)))) == 2


def test_a_few_are_kept_and_none_longer_than_the_layer():
    layer, first = nn.Identity(), batch(0)
    before = len(recomputing._RECENT)
    as_at_first(layer, first, correction(0))
    for number in range(1, KEPT + 1):
        as_at_first(layer, batch(number), correction(number))
    assert len(recomputing._RECENT[layer]) == KEPT
    assert value(in_backward(lambda layer=layer: as_at_first(layer, first, correction(9)))) == 9
    del layer
    gc.collect()
    assert len(recomputing._RECENT) <= before


@pytest.mark.parametrize("where", ["simulated", "meta", "vmap"])
def test_what_does_not_last_is_not_kept(where):
    layer = nn.Identity()
    if where == "simulated":
        with FakeTensorMode():
            as_at_first(layer, batch(0), correction(0))
    elif where == "meta":
        with torch.device("meta"):
            as_at_first(layer, moments(torch.zeros(2, 3), (0,)), correction(0))
    else:
        found = batch(0)
        torch.func.vmap(
            lambda x: as_at_first(layer, found._replace(shift=x[None] * 2), correction(0)), out_dims=None
        )(torch.randn(4, 3))
    assert layer not in recomputing._RECENT
