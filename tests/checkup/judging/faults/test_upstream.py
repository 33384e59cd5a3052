"""Dropout before batch norm: advice from 5 %, a warning from a quarter, silence within doubt."""

import math

import pytest

from checkup.judging.observed import norm, observation
from convscope.checkup.judging.faults.upstream import dropout_before_norm
from convscope.checkup.observed import DropoutShift, InputFacts


def _norm(log_ratio, error, sources=("drop#1",), **changes):
    return norm(inputs=InputFacts(dropout=DropoutShift(sources, log_ratio, error)), **changes)


@pytest.mark.parametrize(
    ("log_ratio", "error", "severity"),
    [
        (0.5, 0.02, "warning"),
        (-0.5, 0.02, "warning"),
        (0.2, 0.01, "advice"),
        (0.5, 0.1, "advice"),
        (0.06, 0.0, "advice"),
    ],
)
def test_beyond_doubt(log_ratio, error, severity):
    (finding,) = dropout_before_norm(observation(_norm(log_ratio, error)))
    assert finding.severity == severity
    assert finding.effect == pytest.approx(max(1.0, (abs(log_ratio) - 4 * error) / math.log(1.25)))
    assert "drop#1" in finding.why


@pytest.mark.parametrize(("log_ratio", "error"), [(0.0, 0.0), (0.04, 0.001), (0.5, 0.12), (0.14, 0.03)])
def test_within_doubt_or_tolerance(log_ratio, error):
    assert list(dropout_before_norm(observation(_norm(log_ratio, error)))) == []


def test_one_dropout_is_one_finding_at_the_layer_that_it_changes_most():
    norms = [
        _norm(0.3, 0.01, address="a"),
        _norm(0.8, 0.01, address="b"),
        _norm(0.4, 0.01, ("other",), address="c"),
    ]
    found = list(dropout_before_norm(observation(*norms)))
    assert [finding.address for finding in found] == ["b", "c"]


def test_frozen_layers_and_others_are_silent():
    assert (
        list(
            dropout_before_norm(observation(_norm(0.8, 0.01, frozen=True), norm(), norm(inputs=InputFacts())))
        )
        == []
    )
