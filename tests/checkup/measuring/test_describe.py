"""What modules and optimizers say of themselves."""

import copy

import pytest
import torch
from torch import nn

import convscope as cs
from checkup.grown import Small
from convscope.checkup.measuring.describe import Roster, optimizer_facts

_STATEFUL = {
    "Adadelta": {}, "Adagrad": {}, "Adam": {}, "AdamW": {}, "Adamax": {}, "ASGD": {}, "NAdam": {},
    "RAdam": {}, "RMSprop": {}, "Rprop": {}, "SGD": {"momentum": 0.9},
}  # fmt: skip


def _step(model, optimizer):
    model(torch.randn(4, 3, 8, 8)).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("name", _STATEFUL)
def test_whether_an_optimizer_has_stepped(name):
    model = Small()
    optimizer = getattr(torch.optim, name)(model.parameters(), **_STATEFUL[name])
    facts = optimizer_facts(model, optimizer)
    assert (facts.kind, facts.has_stepped) == (name, False)
    _step(model, optimizer)
    assert optimizer_facts(model, optimizer).has_stepped is True


def test_an_optimizer_without_a_memory_cant_tell():
    model = Small()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    assert optimizer_facts(model, optimizer).has_stepped is None
    _step(model, optimizer)
    assert optimizer_facts(model, optimizer).has_stepped is None


def test_a_loaded_state_has_stepped():
    model = Small()
    optimizer = torch.optim.AdamW(model.parameters())
    _step(model, optimizer)
    again = torch.optim.AdamW(model.parameters())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert optimizer_facts(model, again).has_stepped is True


def test_an_optimizer_in_accelerates_hands():
    accelerate = pytest.importorskip("accelerate")
    model = Small()
    wrapped = accelerate.Accelerator(cpu=True).prepare(
        torch.optim.AdamW(model.parameters(), weight_decay=0.3)
    )
    facts = optimizer_facts(model, wrapped)
    assert (facts.kind, facts.has_stepped, facts.num_foreign) == ("AdamW", False, 0)
    assert set(facts.decay.values()) == {0.3}


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("around", [lambda norm: norm, nn.Sequential], ids=["alone", "in a network"])
def test_what_freeze_froze_is_frozen_whatever_the_mode_around_it(mode, around):
    model = around(nn.BatchNorm2d(3))
    path = "self" if isinstance(model, nn.BatchNorm2d) else "0"
    assert not Roster(model.train(mode)).from_module(path).frozen
    cs.norm.freeze(model)
    assert Roster(model.train(mode)).from_module(path).frozen
    assert cs.checkup(model).findings == ()


def test_kinds_and_counters():
    net = nn.Sequential(
        nn.BatchNorm2d(4), cs.norm.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False)
    )
    net[0].num_batches_tracked = net[0].num_batches_tracked * 0.5
    found = [Roster(net).from_module(path) for path in "012"]
    assert [norm.kind for norm in found] == [
        "torch.nn.BatchNorm2d", "convscope.norm.BatchNorm2d", "torch.nn.BatchNorm2d",
    ]  # fmt: skip
    assert [norm.counter_dtype for norm in found] == [torch.float32, torch.int64, None]
