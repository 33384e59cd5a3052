"""Layers that took a batch norm in and were merged later: the ledger and the modules name what is there."""

import pytest
import torch.nn.functional as F
from torch import nn

from convscope.fold import FoldedBatchNorm, fold
from convscope.fold.merge.modules import MergedAway
from fold.nets import conv

SHAPE = (2, 3, 8, 7)


class Rep(nn.Module):
    """Three branches, whose sum is written out."""

    def __init__(self):
        super().__init__()
        self.a, self.abn = conv(4, 4), nn.BatchNorm2d(4)
        self.b, self.bbn = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.i = nn.BatchNorm2d(4)

    def forward(self, x):
        return F.relu(self.abn(self.a(x)) + self.bbn(self.b(x)) + self.i(x))


@pytest.fixture
def folded(randomised, relative_error):
    net = randomised(nn.Sequential(conv(), Rep(), Rep(), nn.Conv2d(4, 2, 1))).double()
    found = fold(net, SHAPE)
    assert relative_error(net, found.model, *SHAPE) < 1e-12
    return found


def test_into_names_layers_that_are_there(folded):
    names = {name for entry in folded.ledger.entries for name in entry.into.split(", ")}
    for name in names:
        module = folded.model.get_submodule(name.partition("#")[0])
        assert isinstance(module, nn.Conv2d), name


def test_into_names_each_layer_once(folded):
    into = {entry.address: entry.into for entry in folded.ledger.entries}
    assert into["1.i#1"] == "0#1, 2.a#1"
    assert into["1.abn#1"] == "1.a#1, 2.a#1"


def test_identities_say_the_same(folded):
    modules = dict(folded.model.named_modules())
    away = {name for name, module in modules.items() if isinstance(module, MergedAway)}
    identities = {name: module for name, module in modules.items() if isinstance(module, FoldedBatchNorm)}
    assert away
    assert identities
    for name, module in identities.items():
        entry = next(entry for entry in folded.ledger.entries if entry.address == f"{name}#1")
        assert ", ".join(module.into) == entry.into
        assert not {address.partition("#")[0] for address in module.into} & away
