"""Computed weights that can't become plain ones: what is said, and that nothing else changes."""

import pytest
import torch
import torch.nn.functional as F
from timm.layers import StdConv2d
from torch import nn
from torch.nn.utils import parametrizations

from convscope.fold import fold
from fold.layers.computed import Masked
from fold.nets import IMAGE, Functional, conv


class Switched(Masked):
    """Computes its weights, and does something else every second time."""

    def forward(self, x, again=False):
        return super().forward(x).relu() if again else super().forward(x)


class Noisy(Masked):
    def forward(self, x):
        return F.conv2d(x, self.w + torch.randn_like(self.w))


class Dynamic(Masked):
    def forward(self, x):
        return F.conv2d(x, self.w * x.mean())


class Cropped(Masked):
    """Does something else on wide inputs."""

    def forward(self, x):
        return super().forward(x[..., :5])


def hooked():
    layer = Masked()
    layer.register_forward_hook(lambda *_: None)
    return layer


STAYS = {
    "depends on data": (Dynamic, "isn't a parameter but computed by"),
    "random": (Noisy, "isn't a parameter but computed by"),
    "hooks": (hooked, "has hooks"),
    "does more": (Cropped, "does more"),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_is_no_plain_layer_stays(name, randomised):
    build, reason = STAYS[name]
    net = randomised(nn.Sequential(build(), nn.BatchNorm2d(4), nn.Tanh()))
    (kept,) = fold(net, (2, 3, 6, 5)).ledger.entries
    assert (kept.verdict, kept.remedy) == ("kept", "")
    (entry,) = fold(net, (2, 3, 6, 5), materialise=True).ledger.entries
    assert entry.verdict == "kept"
    assert reason in entry.reason


def test_training_mode_stays(randomised):
    net = randomised(nn.Sequential(parametrizations.spectral_norm(conv()), nn.BatchNorm2d(4), nn.Tanh()))
    net[0].train()
    (entry,) = fold(net, IMAGE, materialise=True).ledger.entries
    assert entry.verdict == "kept"
    assert "training mode; call eval() on it" in entry.reason


def test_code_of_the_network_itself_stays(randomised):
    net = Functional(lambda s, x: s.bn(F.conv2d(x, s.weight.tanh())), bn=nn.BatchNorm2d(4))
    net.weight = nn.Parameter(torch.randn(4, 3, 3, 3))
    (entry,) = fold(randomised(net), IMAGE, materialise=True).ledger.entries
    assert "computed in the network's own code" in entry.reason


def test_another_use_of_the_computed_weight_stays(randomised, relative_error):
    net = Functional(
        lambda s, x: s.bn(s.conv(x)) * s.conv.weight.norm(),
        conv=parametrizations.weight_norm(conv()), bn=nn.BatchNorm2d(4),
    )  # fmt: skip
    folded = fold(randomised(net), IMAGE, materialise=True)
    assert folded.ledger.folded == 0
    assert "the computed conv.weight is also read by" in folded.ledger.entries[0].reason
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_another_use_of_the_raw_weight_stays(randomised, relative_error):
    net = Functional(
        lambda s, x: s.bn(s.conv(x)) * s.conv.weight.norm(), conv=StdConv2d(3, 4, 3), bn=nn.BatchNorm2d(4)
    )
    folded = fold(randomised(net), IMAGE, materialise=True)
    assert folded.ledger.folded == 0
    assert "reads too" in folded.ledger.entries[0].reason
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_another_way_through_the_module_stays(randomised):
    net = Functional(
        lambda s, x: s.bn(s.conv(x)) + s.conv(x, again=True), conv=Switched(), bn=nn.BatchNorm2d(4)
    )
    (entry,) = fold(randomised(net), IMAGE, materialise=True).ledger.entries
    assert entry.verdict == "kept"
