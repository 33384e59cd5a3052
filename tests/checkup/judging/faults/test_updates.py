"""Runs written down by hand, and what is judged of them."""

import math
from dataclasses import replace

import pytest
from torch import nn

from convscope.checkup.judging.faults import judge
from convscope.checkup.measuring.describe import Roster
from convscope.checkup.observed import CallShift, Observation, TrainingRun
from convscope.checkup.observed.run import NormRun, WeightRun

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


ACCUMULATING = replace(QUIET, updates=4, effective_values=100.0)


def accumulating(norm=ACCUMULATING, declared=1, **values):
    run = TrainingRun(20, 11, {"FBFBFBFB": 20}, 4, (norm,), **values)
    return Observation((replace(NORMS[0], updates_per_step=declared), NORMS[1]), run=run)


def test_accumulation():
    found = finding(accumulating(), "accumulated-batches")
    assert (found.severity, found.address, found.effect) == ("advice", "self", 4.0)
    assert found.remedy == "cs.norm.correct_momentum(model, 4)"
    assert finding(accumulating(declared=4), "accumulated-batches") is None
    assert finding(accumulating(declared=2), "accumulated-batches") is not None


@pytest.mark.parametrize(
    ("worth", "values", "severity"), [(15.9, 512, "warning"), (16.1, 512, "advice"), (None, 8, "warning")]
)
def test_what_a_batch_is_worth_says_how_grave_it_is(worth, values, severity):
    norm = replace(ACCUMULATING, effective_values=worth, num_values=values)
    found = finding(accumulating(norm), "accumulated-batches")
    assert found.severity == severity
    if severity == "warning":
        assert found.effect == pytest.approx(16 / (worth or values))
        assert "cs.norm.convert(model, 'group')" in found.remedy


def test_cumulative_averages_may_be_updated_at_will():
    norms = (replace(NORMS[0], momentum=None),)
    run = TrainingRun(20, 11, {"FBFB": 20}, 2, (replace(QUIET, updates=2, recomputed=2),))
    assert finding(Observation(norms, run=run), "accumulated-batches") is None
    assert finding(Observation(norms, run=run), "recomputed-updates") is None


@pytest.mark.parametrize(("shift", "accumulates"), [(0.6, True), (1.6, False)])
def test_several_domains_are_no_accumulation(shift, accumulates):
    observation = accumulating(call_shifts=(CallShift("1", shift, 0.1, 0.0, 4),))
    assert (finding(observation, "accumulated-batches") is not None) == accumulates
    assert (finding(observation, "shared-over-domains") is None) == accumulates


@pytest.mark.parametrize(
    ("updates", "recomputed", "declared", "faults"),
    [
        (1, 0, 1, ()),
        (1, 1, 1, ("recomputed-updates",)),
        (1, 1, 2, ()),
        (4, 4, 1, ("accumulated-batches", "recomputed-updates")),
        (4, 4, 4, ("recomputed-updates",)),
        (4, 4, 2, ("accumulated-batches",)),
        (4, 4, 8, ()),
        (2, 2, 2, ("recomputed-updates",)),
        (2, 2, 4, ()),
        (4, 0, 4, ()),
    ],
)
def test_updates_and_the_momentum_that_is_meant_for_them(updates, recomputed, declared, faults):
    norm = replace(ACCUMULATING, updates=updates, recomputed=recomputed)
    observation = accumulating(norm, declared)
    if updates == 1:
        observation = replace(observation, run=replace(observation.run, accumulated=1))
    both = ("accumulated-batches", "recomputed-updates")
    assert tuple(fault for fault in both if finding(observation, fault)) == faults


def test_recomputation():
    norm = replace(QUIET, recomputed=1)
    found = finding(observed(norms=(norm,)), "recomputed-updates")
    assert (found.severity, found.address, found.effect) == ("warning", "1", 2.0)
    assert values(found)["momentum of a batch"] == pytest.approx(0.19)
    assert "cs.norm.correct_momentum(model, 2, only=['1'])" in found.remedy
    both = observed(norms=(norm, replace(norm, path="2")))
    assert "cs.norm.correct_momentum(model, 2)," in finding(both, "recomputed-updates").remedy


def test_per_sample_gradients():
    found = finding(observed(input_gradients=5, input_gradient_norms=("1", "2")), "per-sample-gradients")
    assert (found.severity, found.address, found.effect) == ("warning", "self", 2.0)
    found = finding(Observation(NORMS, per_sample="Opacus' GradSampleModule"), "per-sample-gradients")
    assert found.severity == "error"
    frozen = tuple(replace(norm, frozen=True) for norm in NORMS)
    assert finding(Observation(frozen, per_sample="Opacus"), "per-sample-gradients") is None


@pytest.mark.parametrize(
    ("changes", "severity", "effect"),
    [
        ({}, None, None),
        ({"update": 0.09}, None, None),
        ({"update": 0.3}, "warning", 3.0),
        ({"end": 0.1}, "warning", 2.0),
        ({"end": 40.0}, "advice", 2.0),
        ({"end": 19.0}, None, None),
        ({"update": 1e-8}, "advice", 10.0),
        ({"update": 0.0}, None, None),
        ({"update": math.nan}, None, None),
        ({"update": 0.3, "invariance": 0.05}, None, None),
        ({"update": 0.3, "invariance": math.nan}, None, None),
        ({"update": 0.3, "num_steps": 9}, None, None),
        ({"end": math.nan}, None, None),
        ({"end": 0.0}, None, None),
    ],
)
def test_drift(changes, severity, effect):
    found = finding(observed(weights=(replace(WEIGHT, **changes),)), "scale-drift")
    assert (found.severity if found else None) == severity
    if found:
        assert found.address == "1"
        assert found.effect == pytest.approx(effect)
