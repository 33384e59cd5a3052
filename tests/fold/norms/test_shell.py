"""Modules around a batch norm: subclasses, relatives, hooks, and code that looks at the module itself."""

import pytest
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
        lambda s, x: s.bn2(s.b(s.bn(s.a(x)))) * s.bn.eps,
        a=conv(3, 3), b=conv(3, 3), bn=nn.BatchNorm2d(3), bn2=nn.BatchNorm2d(3),
    )  # fmt: skip
    folded = fold(randomised(net), IMAGE)
    assert [entry.verdict for entry in folded.ledger.entries] == ["kept", "kept"]
    assert "taken back: with it the network fails (AttributeError" in folded.ledger.entries[0].reason
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_a_second_reference_that_the_tape_cannot_see_is_caught(randomised, relative_error):
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = conv(), nn.BatchNorm2d(4)
            self.steps = [self.conv, self.bn]

        def forward(self, x):
            for step in self.steps:
                x = step(x)
            return x

    net = randomised(Listed())
    folded = fold(net, IMAGE)
    assert "taken back" in folded.ledger.entries[0].reason
    assert relative_error(net, folded.model, *IMAGE) == 0
