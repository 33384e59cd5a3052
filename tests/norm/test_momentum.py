import copy
import itertools
import json
import pickle
from decimal import Decimal, localcontext

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from convscope.core.errors import ConvscopeError
from convscope.core.preserved import preserved
from convscope.norm import BatchNorm2d, InstanceNorm2d
from convscope.norm.freezing.freeze import freeze
from convscope.norm.momentum import MomentumCorrection, correct_momentum, corrected_momentum, declared_updates


def statistics(net):
    return {name: buffer for name, buffer in net.named_buffers() if "running" in name}


def assert_alike(first, second):
    for name, value in statistics(first).items():
        torch.testing.assert_close(value, statistics(second)[name], rtol=1e-12, atol=1e-12)


def test_the_published_figure():
    assert round(corrected_momentum(0.1, 2), 4) == 0.0513  # 1 − √(1 − 0.1)


@pytest.mark.parametrize("momentum", [0, 1e-18, 1e-9, 0.001, 0.1, 0.5, 0.99, 1, 1.0])
@pytest.mark.parametrize("updates", [1, 2, 3, 64, 10_000])
def test_against_fifty_digits(momentum, updates):
    with localcontext(prec=50):
        expected = 1 - (1 - Decimal(momentum)) ** (1 / Decimal(updates))
    assert corrected_momentum(momentum, updates) == pytest.approx(float(expected), rel=1e-14, abs=0)


LAYERS = {
    "torch": lambda m: nn.BatchNorm2d(3, momentum=m),
    "torch instance": lambda m: nn.InstanceNorm2d(3, momentum=m, track_running_stats=True),
    "torch synchronised": lambda m: nn.SyncBatchNorm(3, momentum=m),
    "ours": lambda m: BatchNorm2d(3, momentum=m),
    "our instance": lambda m: InstanceNorm2d(3, momentum=m, track_running_stats=True),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("momentum", "updates"), [*itertools.product((0.1, 0.01, 0.7, 1.0), (1, 2, 5))])
def test_k_equal_micro_batches_move_the_averages_like_one(name, momentum, updates):
    once = LAYERS[name](momentum).double()
    often = copy.deepcopy(once)
    correct_momentum(often, updates)
    for _ in range(3):
        x = torch.randn(4, 3, 5, 2, dtype=torch.float64) * 3 + 2
        once(x)
        for _ in range(updates):
            often(x)
    assert_alike(once, often)


def test_different_micro_batches_are_weighed_as_documented():
    layer, xs = nn.BatchNorm2d(1).double(), torch.randn(4, 6, 1, 2, 2, dtype=torch.float64)
    correct_momentum(layer, 4)
    for x in xs:
        layer(x)
    weights = [0.9 ** (j / 4) - 0.9 ** ((j + 1) / 4) for j in range(3, -1, -1)]  # the oldest first
    assert sum(weights) == pytest.approx(0.1)
    assert weights[-1] / weights[0] == pytest.approx(0.9**-0.75)
    assert layer.running_mean.item() == pytest.approx(sum(w * x.mean().item() for w, x in zip(weights, xs)))


class Net(nn.Module):
    """A checkpointed block with a batch norm, between two batch norms that run once."""

    def __init__(self, use_reentrant):
        super().__init__()
        self.use_reentrant = use_reentrant
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.stem(x)
        block = self.block if self.use_reentrant is None else self._checkpointed
        return self.head(block(x))

    def _checkpointed(self, x):
        return checkpoint(self.block, x, use_reentrant=self.use_reentrant)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_updates_twice_and_the_correction_makes_up_for_it(use_reentrant):
    plain = Net(None).double()
    uncorrected, corrected = (copy.deepcopy(plain) for _ in range(2))
    uncorrected.use_reentrant = corrected.use_reentrant = use_reentrant
    correction = correct_momentum(corrected, 2, only="block")
    assert [layer.path for layer in correction.layers] == ["block.1"]
    assert round(corrected.block[1].momentum, 4) == 0.0513
    for _ in range(3):
        x = torch.randn(5, 3, 6, 4, dtype=torch.float64)
        for net in (plain, uncorrected, corrected):
            net(x).square().sum().backward()
    assert [int(net.block[1].num_batches_tracked) for net in (plain, uncorrected, corrected)] == [3, 6, 6]
    assert int(corrected.stem[1].num_batches_tracked) == 3
    assert_alike(plain, corrected)
    assert not torch.allclose(plain.block[1].running_mean, uncorrected.block[1].running_mean, rtol=1e-3)


def network():
    return nn.ModuleDict(
        {
            "first": nn.BatchNorm2d(3, momentum=0.19),
            "cumulative": nn.BatchNorm2d(3, momentum=None),
            "frozen": nn.BatchNorm2d(3),
            "still": nn.InstanceNorm2d(3, momentum=None, track_running_stats=True),
            "without": nn.BatchNorm2d(3, track_running_stats=False),
            "instance": nn.InstanceNorm2d(3),
            "group": nn.GroupNorm(1, 3),
        }
    )


def test_which_layers_keep_their_momentum_and_why():
    net = network()
    freeze(net, "frozen")
    correction = correct_momentum(net, 2)
    assert [(layer.path, layer.before, round(layer.after, 12)) for layer in correction.layers] == [
        ("first", 0.19, 0.1)
    ]
    assert {layer.path: layer.reason for layer in correction.kept} == {
        "cumulative": "cumulative",
        "frozen": "frozen",
        "still": "unmoved",
    }
    assert (net["cumulative"].momentum, net["frozen"].momentum, net["without"].momentum) == (None, 0.1, 0.1)
    assert str(correction).splitlines()[0] == "momentum of 1 layer corrected for 2 updates per optimizer step"
    assert "an average over all batches weighs them alike" in str(correction)
    assert json.loads(correction.to_json())["kept"][0] == {"path": "cumulative", "reason": "cumulative"}


def test_a_cumulative_average_needs_no_correction():
    once, often = (nn.BatchNorm2d(3, momentum=None).double() for _ in range(2))
    for _ in range(3):
        x = torch.randn(4, 3, 5, 2, dtype=torch.float64)
        once(x)
        for _ in range(2):
            often(x)
    assert_alike(once, often)


def test_undone_also_after_an_exception():
    net = network()
    before = [getattr(module, "momentum", None) for module in net.modules()]
    with pytest.raises(RuntimeError, match="in the block"), correct_momentum(net, 3):
        assert net["first"].momentum < 0.19
        raise RuntimeError("in the block")
    assert [getattr(module, "momentum", None) for module in net.modules()] == before
    correct_momentum(net, 3).undo()
    assert [getattr(module, "momentum", None) for module in net.modules()] == before


def test_accumulation_and_checkpointing_together():
    net = nn.Sequential(nn.BatchNorm2d(3))
    with correct_momentum(net, 4), correct_momentum(net, 2):
        assert net[0].momentum == pytest.approx(1 - 0.9 ** (1 / 8), rel=1e-12)
    assert net[0].momentum == 0.1


def test_a_shared_layer_is_corrected_once():
    shared = nn.BatchNorm2d(3, momentum=0.19)
    correct_momentum(nn.Sequential(shared, shared), 2)
    assert shared.momentum == pytest.approx(0.1)


def test_a_network_without_running_statistics():
    assert correct_momentum(nn.Sequential(nn.ReLU()), 2) == MomentumCorrection(2, (), ())


@pytest.mark.parametrize("updates", [0, -1, 2.0, True, None, "2"])
def test_updates_that_are_no_count(updates):
    net = network()
    for call in (lambda: corrected_momentum(0.1, updates), lambda: correct_momentum(net, updates)):
        with pytest.raises(ConvscopeError, match=r"updates_per_step=.*a whole number from 1"):
            call()


@pytest.mark.parametrize("momentum", [-0.1, 1.1, float("nan"), "0.1", True])
def test_momenta_that_are_no_weight(momentum):
    with pytest.raises(ConvscopeError, match="a number from 0 to 1"):
        corrected_momentum(momentum, 2)
    net = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3, momentum=momentum))
    with pytest.raises(ConvscopeError, match="of BatchNorm2d at '1'; expected a number from 0 to 1"):
        correct_momentum(net, 2)
    assert net[0].momentum == 0.1  # nothing is changed


def test_no_momentum():
    with pytest.raises(ConvscopeError, match=r"a cumulative average \(None\) needs no correction"):
        corrected_momentum(None, 2)


def test_unknown_layers():
    with pytest.raises(ConvscopeError, match=r"only='blok', which is no module .*did you mean 'block'"):
        correct_momentum(Net(None), 2, only="blok")


def test_the_count_stays_with_the_layer():
    net = nn.Sequential(nn.BatchNorm2d(3), BatchNorm2d(3), nn.BatchNorm2d(3, momentum=None))
    before = [set(vars(layer)) for layer in net]
    keys = list(net.state_dict())
    first = correct_momentum(net, 4)
    second = correct_momentum(net, 2, only="0")
    for alike in (net, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert [declared_updates(layer) for layer in alike] == [8, 4, 1]
        assert list(alike.state_dict()) == keys
    assert net[0].updates_per_step == 8
    second.undo()
    assert [declared_updates(layer) for layer in net] == [4, 4, 1]
    first.undo()
    assert [set(vars(layer)) for layer in net] == before
    assert "_declared" not in second.to_dict()


def test_the_count_is_kept_like_any_attribute():
    net = nn.Sequential(nn.BatchNorm2d(3))
    with preserved(net):
        correct_momentum(net, 3)
    assert declared_updates(net[0]) == 1
    correct_momentum(net, 1)
    assert "updates_per_step" not in vars(net[0])
