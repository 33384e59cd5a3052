"""Faults are put into healthy networks: each is found where it is, nothing else is, and its remedy helps."""

import pytest
from bench.checkup_suite import planted_processes
from bench.checkup_suite.planted import examine
from bench.checkup_suite.planted_all import CASES

from convscope.checkup import fault_names

NUM_CATALOGUE = 34
LEAST = 28
TOP = (7, 3, 4, 1, 6, 10, 22, 15, 21, 8, 11, 24, 17, 29, 14, 13)


def _staged():
    """Every fault once in the fast stage, in the plain network; in others, and in other ways, in the slow."""
    first = {case.fault: case for case in reversed(CASES) if case.network == "plain"}.values()
    return [pytest.param(case, marks=() if case in first else pytest.mark.slow) for case in CASES]


@pytest.mark.parametrize("case", _staged(), ids=str)
def test_planted(case):
    # Each state is examined once: a loop that is run again goes on training.
    before = case.healthy()
    findings = examine(before).findings
    assert case.fault not in {finding.fault for finding in findings}
    assert _grave(findings) == set()

    planted = case.plant(before)
    findings = examine(planted).findings
    found = [finding for finding in findings if finding.fault == case.fault]
    assert found, [finding.fault for finding in findings]
    assert found[0].address.startswith(case.address), [finding.address for finding in found]
    assert case.remedy in found[0].remedy
    assert _grave(findings) - {case.fault, *case.expects} == set()

    findings = examine(case.mend(planted)).findings
    assert case.fault not in {finding.fault for finding in findings}
    assert _grave(findings) == set()


def _grave(findings):
    """What would alarm a user."""
    return {finding.fault for finding in findings if finding.severity in ("error", "warning")}


def test_every_fault_is_planted_in_two_architectures():
    networks = {}
    for case in (*CASES, *planted_processes.CASES):
        networks.setdefault(case.fault, set()).add(case.network)
    assert {fault: names for fault, names in networks.items() if len(names) < 2} == {}
    assert set(networks) == set(fault_names())


def test_the_catalogue_is_planted():
    numbers = {case.number for case in (*CASES, *planted_processes.CASES)} - {0}
    assert numbers <= set(range(1, NUM_CATALOGUE + 1))
    assert len(numbers) >= LEAST
    assert set(TOP) <= numbers
