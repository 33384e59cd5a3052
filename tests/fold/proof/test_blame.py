"""Whose fold it is: from what was seen, one failure after the other, without any run."""

import dataclasses

import pytest
import torch
from torch import nn

from convscope.fold.planning.plan import plan
from convscope.fold.planning.survey import ShiftStays
from convscope.fold.proof.blame import Blame
from convscope.fold.proof.comparison import Comparison, Wrong
from convscope.fold.proof.trials import described
from convscope.tape import record
from fold.nets import IMAGE


class Pair(nn.Module):
    """conv1 → bn1 → relu → conv2 → bn2."""

    def __init__(self, channels=3):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.conv2, self.bn2 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()


@pytest.fixture
def blamed(randomised):
    """Return what blames batch norms of three such pairs, and remembers."""
    net = randomised(nn.Sequential(Pair(), Pair(), Pair()))
    tape = record(net, IMAGE)
    blame = Blame(net, described(IMAGE, torch.float32))

    def hold(wrong=(), shifted=(), outputs=False, spare=True, **seen):
        made = plan(tape, net, without=blame.held)
        comparison = Comparison(1.0, 1.0, dict.fromkeys(wrong, 0.5), **seen)
        before = set(blame.held)
        blame.hold(made, comparison, Wrong(frozenset(wrong), frozenset(shifted), outputs), spare=spare)
        return set(blame.held) - before

    hold.held = blame.held
    return hold


ALL = {f"{i}.bn{k}#1" for i in range(3) for k in (1, 2)}


def test_a_wrong_place_is_its_own_fault(blamed):
    assert blamed(["0.bn2#1", "2.bn1#1"]) == {"0.bn2#1", "2.bn1#1"}
    assert not any(isinstance(why, ShiftStays) for why in blamed.held.values())


def test_a_wrong_shift_stays_and_the_scale_with_it_if_that_is_no_help(blamed):
    assert blamed(["0.bn2#1"], ["0.bn2#1"]) == {"0.bn2#1"}
    assert isinstance(blamed.held["0.bn2#1"], ShiftStays)
    assert blamed(["0.bn2#1"], ["0.bn2#1"]) == {"0.bn1#1"}  # or that of what hands one on
    assert blamed(["0.bn2#1"], ["0.bn2#1"]) == set()
    assert not any(isinstance(why, ShiftStays) for why in blamed.held.values())


def test_what_is_held_in_vain_has_its_fault_before_it(blamed):
    assert blamed(["1.bn1#1"]) == {"1.bn1#1"}
    assert blamed(["1.bn2#1"]) == {"0.bn2#1"}


def test_wrong_outputs_are_the_fault_of_what_they_are_made_of(blamed):
    assert blamed(outputs=True) == {"2.bn2#1"}
    assert blamed(outputs=True) == set()  # now altogether
    assert blamed(outputs=True) == {"2.bn1#1"}


def test_writes_are_the_fault_of_what_reads_the_inputs(blamed):
    assert blamed(writes=True) == {"0.bn1#1"}


def test_code_that_fails_does_so_in_all_modules_of_its_class(blamed):
    seen = {"failure": "ValueError: no", "failed_in": "0#1", "reached": ("0.bn1#1",)}
    assert blamed(**seen) == {f"{i}.bn1#1" for i in range(3)}
    assert all("the network fails in 0#1 (ValueError: no)" in why for why in blamed.held.values())
    assert blamed(**{**seen, "reached": ()}) == {f"{i}.bn2#1" for i in range(3)}


def test_a_batch_norm_that_cannot_be_called_so_and_a_layer_that_fails(blamed):
    failure = {"failure": "TypeError: no", "reached": ("0.bn1#1", "0.bn2#1")}
    assert blamed(**failure, failed_in="0.bn2#1") == {f"{i}.bn2#1" for i in range(3)}
    assert blamed(**failure, failed_in="1.conv1#1") == {"1.bn1#1"}


def test_what_fails_nowhere_known_takes_the_last_and_then_all(blamed):
    seen = {"failure": "ValueError: no", "failed_in": "9#1", "reached": ()}
    assert blamed(**seen) == ALL


def test_first_ones_of_many(randomised):
    net = randomised(nn.Sequential(Pair(), Pair()))
    blame = Blame(net, described(IMAGE, torch.float32))
    wrong = Wrong(frozenset({"0.bn2#1", "1.bn1#1"}), frozenset({"1.bn1#1"}), outputs=True)
    firsts = blame.firsts(plan(record(net, IMAGE), net), wrong)
    assert dataclasses.astuple(firsts) == (frozenset({"0.bn2#1"}), frozenset(), False)
