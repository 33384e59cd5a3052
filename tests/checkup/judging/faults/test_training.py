"""Runs written down by hand, and what is judged of them."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from convscope.checkup.judging.faults import judge
from convscope.checkup.measuring.describe import Roster, optimizer_facts
from convscope.checkup.observed import Observation, TrainingRun
from convscope.checkup.observed.run import EvaluationSteps, NormRun, StrayCalls, WeightRun

NET = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.BatchNorm2d(4, momentum=0.01))
NORMS = tuple(Roster(NET).from_module(path) for path in ("1", "2"))
QUIET = NormRun("1", 1, 0, num_values=512, num_images=32)
WEIGHT = WeightRun("0.weight", "1", 2.0, 2.5, 0.01, 1e-6, 0.1, 11, 0.1)


def observed(**values):
    return Observation(NORMS, run=TrainingRun(**{"num_steps": 20, "num_sampled": 11, **values}))


def finding(observation, fault):
    found = [finding for finding in judge(observation)[0] if finding.fault == fault]
    assert len(found) <= 1
    return found[0] if found else None


def values(found):
    return {item.name: item.value for item in found.evidence}


STRAY = StrayCalls(3, ("1", "2"), 2.0, 0.1, "2", 1, 7)


def test_a_quiet_run():
    run = observed(norms=(QUIET,), patterns={"FB": 20}, weights=(WEIGHT,))
    mine = {"young-statistics"}  # of a network that hasn't been trained
    assert {finding.fault for finding in judge(run)[0]} == mine


def test_evaluations():
    found = finding(observed(evaluations=STRAY), "evaluating-in-training-mode")
    assert (found.severity, found.address, found.effect) == ("error", "self", 4.0)
    assert values(found)["forward passes"] == 3
    assert "2 σ" in found.why
    assert "model.eval()" in found.remedy


@pytest.mark.parametrize(("steps", "severity"), [(20, "warning"), (500, "advice")])
def test_dummies_are_forgotten(steps, severity):
    found = finding(observed(dummies=STRAY, num_steps=steps), "dummy-forwards")
    assert (found.severity, found.address) == (severity, "2")
    assert values(found)["their weight by now"] == pytest.approx(0.99**steps)
    assert "on constant images" in found.why


def test_dummies_without_a_run_are_told_from_the_optimizer():
    net = nn.Sequential(nn.BatchNorm2d(3))
    net(torch.randn(8, 3, 4, 4) * 3 + 5)
    facts = optimizer_facts(net, torch.optim.Adam(net.parameters()))
    norms = (Roster(net).from_module("0"),)
    assert finding(Observation(norms, optimizer=facts, training=True), "dummy-forwards") is not None
    with_run = Observation(norms, optimizer=facts, training=True, run=TrainingRun(0))
    assert finding(with_run, "dummy-forwards") is None


def test_steps_in_evaluation_mode():
    steps = EvaluationSteps(6, 2, 2, 1.0, 3)
    found = finding(observed(evaluation_steps=steps), "training-in-evaluation-mode")
    assert (found.severity, found.address, found.effect) == ("warning", "self", 3.0)
    assert "3 dropout layers" in found.why
    assert finding(observed(evaluation_steps=replace(steps, count=1)), "training-in-evaluation-mode") is None


def test_freezes():
    undone = replace(QUIET, path="2", frozen_steps=5, undone_at=6, undone_shift=1.5)
    found = finding(observed(norms=(QUIET, undone)), "freeze-undone")
    assert (found.address, found.effect) == ("2", 3.0)
    assert found.remedy.startswith('cs.norm.freeze(model, only="2")')
    both = observed(norms=(replace(undone, path="1"), undone))
    assert finding(both, "freeze-undone").remedy.startswith("cs.norm.freeze(model),")
    frozen = replace(QUIET, frozen_steps=5)
    assert finding(observed(norms=(frozen,)), "freeze-undone") is None


def test_passes_that_come_with_the_steps_are_advice():
    found = finding(observed(interleaved=STRAY), "evaluating-in-training-mode")
    assert (found.severity, found.address, found.effect) == ("advice", "self", 4.0)
    assert "interleaved with the steps" in found.why


@pytest.mark.parametrize(
    ("count", "blocks", "longest", "severity"),
    [(4, 2, 2, "advice"), (6, 2, 3, "error"), (4, 1, 4, "advice"), (5, 1, 5, "error"), (9, 9, 1, "advice")],
)
def test_passes_with_gradients_are_evaluations_if_they_come_in_rows(count, blocks, longest, severity):
    stray = replace(STRAY, count=count, with_gradients=count, blocks=blocks, longest=longest)
    assert finding(observed(evaluations=stray), "evaluating-in-training-mode").severity == severity
    without = replace(stray, with_gradients=0)
    assert finding(observed(evaluations=without), "evaluating-in-training-mode").severity == "error"
