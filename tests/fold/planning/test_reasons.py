"""The ledger's reason: each kind of hindrance is told from the others, and named by its place."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.fold import fold
from fold.nets import IMAGE, Functional


def net(forward, **more):
    return lambda: Functional(
        forward,
        stem=nn.Conv2d(3, 4, 1),
        bn=nn.BatchNorm2d(4),
        a=nn.Conv2d(4, 4, 1),
        b=nn.Conv2d(4, 4, 3, padding=1),
        **more,
    )


REASONS = {
    "a sign": (
        net(lambda s, x: s.a(F.relu(s.bn(F.relu(s.stem(x)))))),
        ["passes a positive scale only", "gamma isn't positive in 2 of 4 channels"],
    ),
    "nothing before, an output after": (
        lambda: nn.Sequential(nn.BatchNorm2d(3)),
        ["input of the network", "is an output of the network"],
    ),
    "something opaque before": (
        net(lambda s, x: s.bn(s.stem(x).sigmoid()) * 2),
        ["comes from self#1:sigmoid.1", "is an output of the network"],
    ),
    "another reader": (
        net(lambda s, x: s.bn(y := s.stem(x)) + y.sigmoid()),
        ["the output of stem#1:convolution.1 is also read by self#1:sigmoid.1"],
    ),
    "a layer called elsewhere": (
        net(lambda s, x: s.bn(s.stem(x)) + s.stem(x)),
        ["the layer of stem#1:convolution.1 is also called at stem#2:convolution.1"],
    ),
    "zeros around": (
        net(lambda s, x: s.b(s.bn(s.stem(x).sigmoid())).sigmoid()),
        ["b#1:convolution.1 pads with zeros"],
    ),
    "a product": (net(lambda s, x: s.a((y := s.bn(s.stem(x).sigmoid())) * y)), ["self#1:mul.1"]),
    "a hook": (
        net(lambda s, x: s.bn(s.stem(x))),
        ["a hook of stem#1 sees the output of stem#1:convolution.1"],
    ),
}


@pytest.mark.parametrize("name", REASONS)
def test_reason(name, randomised, relative_error):
    make, phrases = REASONS[name]
    model = randomised(make()).double()
    if name == "a hook":
        model.stem.register_forward_hook(lambda module, args, result: None)
    folded = fold(model, IMAGE)
    (entry,) = folded.ledger.entries
    assert entry.verdict != "folded"
    assert all(phrase in entry.reason for phrase in phrases), entry.reason
    assert relative_error(model, folded.model, *IMAGE) < 1e-12


def test_gammas_of_zero_are_named(randomised):
    def forward(s, x):
        y = s.stem(x)
        return s.a(F.relu(s.bn(F.max_pool2d(y, 1)))) + s.b(y)

    model = randomised(net(forward)()).double()
    with torch.no_grad():
        model.bn.weight.abs_()[1] = 0
    (entry,) = fold(model, IMAGE).ledger.entries
    assert entry.verdict == "kept"
    assert "gamma" in entry.reason


def test_every_reason_is_one_line_and_names_no_internals(randomised):
    for make, _ in REASONS.values():
        for entry in fold(randomised(make()), IMAGE).ledger.entries:
            assert "\n" not in entry.reason
            assert "label" not in entry.reason
            assert "gauge" not in entry.reason
