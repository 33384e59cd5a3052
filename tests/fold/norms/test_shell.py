"""Modules around a batch norm: subclasses, relatives, hooks, and code that looks at the module itself."""

import types

import pytest
import torch
from torch import nn

from convscope.fold import FoldedBatchNormAct, fold
from convscope.norm import BatchNorm2d as OurBatchNorm2d
from fold.nets import IMAGE, Functional, conv


def test_subclass_keeps_its_activation(randomised, relative_error):
    class Activated(nn.BatchNorm2d):
        def __init__(self, channels):
            super().__init__(channels)
            self.drop, self.act = nn.Identity(), nn.ReLU(inplace=True)

        def forward(self, x):
            return self.act(self.drop(super().forward(x)))

    net = randomised(nn.Sequential(conv(), Activated(4), conv(4, 2)))
    folded = fold(net, IMAGE)
    assert folded.ledger.folded == 1
    assert isinstance(folded.model[1], FoldedBatchNormAct)
    assert [name for name, _ in folded.model[1].named_children()] == ["drop", "act"]
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_subclass_that_computes_more_still_computes_it(randomised, relative_error):
    class Doubled(nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    class Gated(nn.BatchNorm2d):
        def __init__(self, channels):
            super().__init__(channels)
            self.gate = nn.Sigmoid()

        def forward(self, x):
            return self.gate(x) * super().forward(x)

    class Noted(nn.BatchNorm2d):
        def __init__(self, channels):
            super().__init__(channels)
            self.act = nn.ReLU()

        def forward(self, x):
            y = super().forward(x)
            self.act(y)
            return y

    for subclass in (Doubled, Gated, Noted):
        net = randomised(nn.Sequential(conv(), subclass(4)))
        folded = fold(net, IMAGE)
        assert isinstance(folded.model[1], subclass), "what else it computes still runs"
        assert relative_error(net, folded.model, *IMAGE) < 1e-6


@pytest.mark.parametrize(
    "norm", [nn.SyncBatchNorm, OurBatchNorm2d, lambda c: nn.BatchNorm2d(c, affine=False)]
)
def test_relatives_of_batch_norm_fold(norm, randomised, relative_error):
    net = randomised(nn.Sequential(conv(), norm(4), nn.ReLU()))
    folded = fold(net, IMAGE)
    assert folded.ledger.folded == 1
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_instance_and_group_norm_are_no_batch_norms():
    net = nn.Sequential(conv(), nn.InstanceNorm2d(4), conv(4, 4), nn.GroupNorm(2, 4)).eval()
    assert fold(net, IMAGE).ledger.entries == ()


def test_value_that_a_hook_or_attribute_keeps_stays(randomised):
    class Caching(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = conv(), nn.BatchNorm2d(4)

        def forward(self, x):
            self.cache = self.conv(x)
            return self.bn(self.cache)

    assert "kept after the run" in fold(randomised(Caching()), IMAGE).ledger.entries[0].reason


@pytest.mark.parametrize("place", [0, 1])
def test_hooked_modules_stay(place, randomised):
    net = randomised(nn.Sequential(conv(), nn.BatchNorm2d(4)))
    net[place].register_forward_hook(lambda module, args, result: None)
    folded = fold(net, IMAGE)
    assert "hook" in folded.ledger.entries[0].reason
    assert len(folded.model[place]._forward_hooks) == 1


def test_code_that_needs_the_batch_norm_itself_gets_it_back(randomised, relative_error):
    net = Functional(
        lambda s, x: s.bn2(s.b(s.bn(s.a(x)))) * s.bn.weight.shape[0],
        a=conv(3, 3), b=conv(3, 3), bn=nn.BatchNorm2d(3), bn2=nn.BatchNorm2d(3),
    )  # fmt: skip
    folded = fold(randomised(net), IMAGE)
    assert [entry.verdict for entry in folded.ledger.entries] == ["kept", "kept"]
    assert "taken back: with it the network fails" in folded.ledger.entries[0].reason
    assert "(AttributeError" in folded.ledger.entries[0].reason
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


class WithDropout(nn.BatchNorm2d):
    def __init__(self, channels, **options):
        super().__init__(channels, **options)
        self.drop = nn.Dropout()

    def forward(self, x):
        return self.drop(super().forward(x))


CONFIGURED = {
    "a batch norm": lambda: nn.BatchNorm2d(3, eps=0.25, momentum=0.5),
    "one that averages all batches": lambda: nn.BatchNorm2d(3, momentum=None),
    "one without gamma": lambda: nn.BatchNorm2d(3, affine=False),
    "one with a part of its own": lambda: WithDropout(3, eps=0.25),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("verdict", ["folded", "partial"])
@pytest.mark.parametrize("name", CONFIGURED)
def test_code_may_ask_for_how_a_folded_batch_norm_is_configured(name, verdict, randomised, relative_error):
    def forward(s, x):
        norm = s.bn
        y = norm(s.before(x)) if verdict == "folded" else norm(x.relu())
        momentum = 2 if norm.momentum is None else norm.momentum
        return s.after(y) * norm.num_features + norm.eps + momentum + norm.affine + norm.track_running_stats

    net = Functional(forward, before=conv(3, 3), bn=CONFIGURED[name](), after=conv())
    folded = fold(randomised(net), IMAGE)
    assert [entry.verdict for entry in folded.ledger.entries] == [verdict]
    assert relative_error(net, folded.model, *IMAGE) < 1e-6
    assert torch.jit.script(folded.model.bn)(torch.zeros(IMAGE)).shape == IMAGE


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: 3 * nn.BatchNorm2d.forward(self, x),
        lambda self, x: nn.BatchNorm2d.forward(self, x).relu(),
        lambda self, x: nn.BatchNorm2d.forward(self, x),
        lambda self, x: nn.BatchNorm2d.forward(self, x) + x,
    ],
)
def test_a_batch_norm_with_other_code_keeps_it(forward, randomised, relative_error):
    net = randomised(nn.Sequential(conv(bias=False), nn.BatchNorm2d(4)))
    net[1].forward = types.MethodType(forward, net[1])
    folded = fold(net, IMAGE)
    assert not any("taken back" in entry.reason for entry in folded.ledger.entries)
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


class Listed(nn.Module):
    """Runs its layers by another way than their names."""

    def __init__(self, hold):
        super().__init__()
        self.conv, self.bn, self.act = conv(), nn.BatchNorm2d(4), nn.ReLU()
        self.steps = hold([self.conv, self.bn, self.act])

    def forward(self, x):
        for step in self.steps.values() if isinstance(self.steps, dict) else self.steps:
            x = step(x)
        return x


class Steps:
    """A container that nobody but its network knows."""

    def __init__(self, steps):
        self.steps = steps

    def __iter__(self):
        return iter(self.steps)


@pytest.mark.parametrize("hold", [list, tuple, lambda steps: dict(enumerate(steps))])
def test_modules_that_plain_lists_hold_too_fold(hold, randomised, relative_error):
    net = randomised(Listed(hold))
    steps = list(net.steps)
    folded = fold(net, IMAGE)
    assert [(entry.verdict, entry.into) for entry in folded.ledger.entries] == [("folded", "conv#1")]
    assert relative_error(net, folded.model, *IMAGE) < 1e-6
    assert list(net.steps) == steps
    assert isinstance(net.bn, nn.BatchNorm2d)
    held = list(folded.model.steps.values() if hold not in (list, tuple) else folded.model.steps)
    assert held == [folded.model.conv, folded.model.bn, folded.model.act]


def test_a_second_reference_that_nobody_can_see_is_caught(randomised, relative_error):
    net = randomised(Listed(Steps))
    folded = fold(net, IMAGE)
    assert "taken back" in folded.ledger.entries[0].reason
    assert relative_error(net, folded.model, *IMAGE) == 0
