"""What a gap may be, in nats and in other units."""

import pytest

from checkup.judging.observed import norm, observation
from convscope.checkup.judging.faults import judge
from convscope.checkup.judging.gap_limit import is_too_large, tolerated_gap
from convscope.checkup.observed import Gap


def _faults(gap, **changes):
    found, _ = judge(observation(norm(), gap=gap, **changes))
    return [finding.fault for finding in found]


@pytest.mark.parametrize(
    ("batch_loss", "in_nats", "by_chance", "expected"),
    [
        (0.1, True, None, 0.05),
        (2.0, True, None, 0.2),
        (1e-4, False, None, 1e-5),
        (-3.0, False, None, 0.3),
        (1e-4, False, 1e-4 + 1e-2, 2e-4),
        (1.0, False, 0.5, 0.1),
        (0.1, True, 1000.0, 0.05),
    ],
)
def test_limits(batch_loss, in_nats, by_chance, expected):
    gap = Gap(batch_loss, batch_loss, 0.0, in_nats=in_nats, by_chance=by_chance)
    assert tolerated_gap(gap) == pytest.approx(expected)


def test_a_gap_in_thousandths_counts_where_the_loss_is_of_that_size():
    gap = Gap(2e-3, 2e-4, 1e-5, in_nats=False)
    assert is_too_large(gap)
    assert "train-eval-gap" in _faults(gap)
    assert "train-eval-gap" not in _faults(Gap(2e-3, 2e-4, 1e-5))
    assert "train-eval-gap" not in _faults(Gap(2e-3, 2e-4, 1e-3, in_nats=False))


def test_an_average_that_costs_is_named_though_no_channel_is_far_off():
    costly, fine = Gap(0.6, 0.4, 0.01), Gap(0.41, 0.4, 0.01)
    assert "averaged-weights" in _faults(costly, averaged="AveragedModel")
    assert "averaged-weights" not in _faults(costly)
    found, _ = judge(observation(norm(), gap=fine, averaged="AveragedModel"))
    assert [(f.fault, f.severity) for f in found if f.fault == "averaged-weights"] == [
        ("averaged-weights", "advice")
    ]


@pytest.mark.parametrize(("in_nats", "unit"), [(True, "nats"), (False, "loss")])
def test_every_loss_in_the_evidence_has_the_gap_s_unit(in_nats, unit):
    gap = Gap(0.9, 0.2, 0.01, in_nats=in_nats)
    found, _ = judge(observation(norm(), gap=gap, averaged="AveragedModel"))
    evidence = [
        each for finding in found for each in finding.evidence if "gap" in each.name or "loss" in each.name
    ]
    assert {finding.fault for finding in found} >= {"train-eval-gap", "averaged-weights"}
    assert len(evidence) >= 6
    assert {each.unit for each in evidence} == {unit}
