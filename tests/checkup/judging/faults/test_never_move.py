"""Momentum 0: the cause comes before the stale statistics that follow from it, and is an error then."""

import pytest
import torch
from bench.checkup_suite.networks import grown, loader
from torch import nn

import convscope as cs
from checkup.judging.observed import norm, observation, shifted
from convscope.checkup import checkup
from convscope.checkup.judging.faults import judge
from convscope.checkup.observed import Gap

NEVER, STALE = "statistics-never-move", "stale-statistics"


def _stale(momentum):
    """The weights before a batch norm move on; its averages do with momentum, and don't without."""
    model = grown("plain")
    model[5].momentum = momentum
    with torch.no_grad():
        model[4].weight.mul_(4)
    return model


def test_the_cause_comes_first_and_both_remedies_name_it():
    found = checkup(_stale(0.0), loader())
    named = [each for each in found.findings if each.fault in (NEVER, STALE)]
    assert [each.fault for each in named] == [NEVER, STALE]
    cause, follows = named
    assert (cause.severity, cause.effect) == ("error", follows.effect)
    assert cause.remedy.startswith("set its momentum to 0.1, then cs.norm.recalibrate(model, loader)")
    assert 'cs.norm.freeze(model, only="5") after that' in cause.remedy
    assert "track_running_stats" not in cause.remedy
    assert follows.remedy.startswith("set the momentum of 5 to 0.1; then estimate them anew")
    assert NEVER in follows.why


def test_the_gaps_remedy_names_it_too():
    for momentum, start in ((0.0, "set the momentum of self to 0.1; then estimate"), (0.1, "estimate")):
        seen = observation(norm(shifted(64), momentum=momentum), gap=Gap(2.0, 1.0, 0.01))
        (gap,) = [each for each in judge(seen)[0] if each.fault == "train-eval-gap"]
        assert gap.remedy.startswith(start)


def test_without_it_nothing_is_said_of_momentum():
    found = checkup(_stale(0.1), loader())
    assert NEVER not in {each.fault for each in found.findings}
    (stale,) = [each for each in found.findings if each.fault == STALE]
    assert stale.remedy.startswith("estimate them anew")
    assert "momentum" not in stale.why


def test_what_recalibration_alone_leaves_behind():
    """After more training the fault is back; with the remedy's momentum it isn't."""
    for momentum, is_back in ((0.0, True), (0.1, False)):
        model = _stale(0.0)
        model[5].momentum = momentum
        cs.norm.recalibrate(model, loader())
        with torch.no_grad():
            model[4].weight.mul_(4)
            model.train()
            for _ in range(10):
                for images, _labels in loader():
                    model(images)
        found = checkup(model.eval(), loader()).findings
        assert (STALE in {each.fault for each in found}) is is_back


@pytest.mark.parametrize(("moved", "severity"), [(False, "error"), (True, "warning")])
def test_statically_it_is_an_error_at_the_starting_values(moved, severity):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, momentum=0.0), nn.ReLU())
    if moved:
        net[1].running_mean.fill_(0.5)
    (finding,) = [each for each in checkup(net, (2, 3, 8, 8)).findings if each.fault == NEVER]
    assert finding.severity == severity
    assert finding.remedy == (
        'cs.norm.freeze(model, only="1") to freeze it; or set its momentum to 0.1, then '
        "cs.norm.recalibrate(model, loader)"
    )


def test_the_other_setting_has_its_own_remedy():
    model = grown("plain").train()
    model[5].track_running_stats = False
    (finding,) = [each for each in checkup(model).findings if each.fault == NEVER]
    assert finding.severity == "warning"
    assert "set its track_running_stats to True, then" in finding.remedy
    assert "momentum" not in finding.remedy
