"""The ledger's ``into``: which layers took a batch norm in, by networks where there is one answer."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.fold import fold
from fold.nets import IMAGE, Functional


def one(**options):
    return nn.Conv2d(4, 4, 1, **options)


def norm():
    return nn.BatchNorm2d(4)


CASES = {
    "the layer before": (
        lambda: Functional(lambda s, x: s.bn(s.stem(x)), stem=nn.Conv2d(3, 4, 1), bn=norm()),
        {"bn#1": "stem#1"},
    ),
    "the layer after": (
        lambda: Functional(
            lambda s, x: s.a(s.bn(s.stem(x).sigmoid())), stem=nn.Conv2d(3, 4, 1), bn=norm(), a=one()
        ),
        {"bn#1": "a#1"},
    ),
    "both layers before a concatenation": (
        lambda: Functional(
            lambda s, x: s.bn(torch.cat([s.b(x), s.a(x)], 1)),
            a=nn.Conv2d(3, 2, 1),
            b=nn.Conv2d(3, 2, 1),
            bn=norm(),
        ),
        {"bn#1": "b#1, a#1"},
    ),
    "both layers before an addition": (
        lambda: Functional(
            lambda s, x: s.bn(s.a(x) + s.b(x)), a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(3, 4, 1), bn=norm()
        ),
        {"bn#1": "a#1, b#1"},
    ),
    "not the layer before, whose output is seen": (
        lambda: Functional(
            lambda s, x: (y := s.stem(x), s.a(s.bn(y))), stem=nn.Conv2d(3, 4, 1), bn=norm(), a=one()
        ),
        {"bn#1": "a#1"},
    ),
    "both layers after": (
        lambda: Functional(
            lambda s, x: s.a(y := s.bn(s.stem(x).sigmoid())) + s.b(y),
            stem=nn.Conv2d(3, 4, 1),
            bn=norm(),
            a=one(),
            b=one(),
        ),
        {"bn#1": "a#1, b#1"},
    ),
    "through another batch norm": (
        lambda: Functional(
            lambda s, x: s.second(s.first(s.stem(x))), stem=nn.Conv2d(3, 4, 1), first=norm(), second=norm()
        ),
        {"first#1": "stem#1", "second#1": "stem#1"},
    ),
    "only its own": (
        lambda: Functional(
            lambda s, x: s.second(s.b(F.relu(s.first(s.a(x))))),
            a=nn.Conv2d(3, 4, 1),
            b=one(),
            first=norm(),
            second=norm(),
        ),
        {"first#1": "a#1", "second#1": "b#1"},
    ),
    "the layer after, through other batch norms": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3)),
        {"0#1": "3#1", "1#1": "3#1", "2#1": "3#1"},
    ),
    "the layers before and after, which share batch norms": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), norm(), norm()),
        {"0#1": "2#1", "1#1": "2#1", "3#1": "2#1", "4#1": "2#1"},
    ),
    "one layer after, and one that another batch norm's value goes to": (
        lambda: Functional(
            lambda s, x: s.a(y := s.first(s.stem(x).sigmoid())) + s.b(s.second(y)),
            stem=nn.Conv2d(3, 4, 1),
            first=norm(),
            second=norm(),
            a=one(),
            b=one(),
        ),
        {"first#1": "a#1, b#1", "second#1": "b#1"},
    ),
    "a batch norm that stays": (
        lambda: Functional(
            lambda s, x: s.first(s.second(x.sigmoid()).contiguous()).sigmoid(),
            first=nn.BatchNorm2d(3),
            second=nn.BatchNorm2d(3),
        ),
        {"second#1": "first#1"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_into(name, randomised, relative_error):
    make, expected = CASES[name]
    net = randomised(make()).double()
    folded = fold(net, IMAGE, merge=False)
    found = {e.address: e.into for e in folded.ledger.entries if e.verdict == "folded"}
    if name == "a batch norm that stays":  # either takes the other in
        assert found in ({"second#1": "first#1"}, {"first#1": "second#1"})
    else:
        assert found == expected
    assert relative_error(net, folded.model, *IMAGE) < 1e-12


def test_what_is_named_is_what_has_changed(randomised):
    """Every layer that a batch norm went into has other weights; every other layer has its own."""
    net = randomised(
        Functional(
            lambda s, x: s.d(F.relu(s.c(s.second(s.b(F.relu(s.first(s.a(x)))).sigmoid())))),
            a=nn.Conv2d(3, 4, 1), b=one(), c=one(), d=one(), first=norm(), second=norm(),
        )
    )  # fmt: skip
    folded = fold(net, IMAGE)
    named = {address for entry in folded.ledger.entries for address in entry.into.split(", ")}
    changed = {
        f"{n}#1"
        for n in "abcd"
        if not torch.equal(net.get_submodule(n).weight, folded.model.get_submodule(n).weight)
    }
    assert named == changed == {"a#1", "c#1"}
