"""Faults between processes, in two gloo processes and by hand."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[4]))

from bench.checkup_suite.planted_processes import CASES, run

from checkup.judging.observed import norm, observation, shifted
from convscope.checkup.judging.faults.batch_size import micro_batch
from convscope.checkup.judging.faults.processes import processes_disagree, unsynchronised_statistics
from convscope.checkup.observed import ProcessFacts
from convscope.checkup.unchecked import Unchecked
from processes import FORKING


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run(tmp_path_factory.mktemp("processes"), context=FORKING)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_planted_in_processes(found, case, rank):
    before, planted, mended = (found[rank][str(case), state] for state in ("healthy", "planted", "mended"))
    assert _grave(before) == set()
    assert _grave(planted) == {case.fault}
    _, _, address, remedy = next(finding for finding in planted if finding[0] == case.fault)
    assert address.startswith(case.address)
    assert case.remedy in remedy
    assert _grave(mended) == set()


def _grave(findings):
    return {fault for fault, severity, _, _ in findings if severity in ("error", "warning")}


def _of(facts, values=6, **changes):
    batches = [batch for _ in range(6) for batch in shifted(values)]
    return observation(norm(batches, **changes), processes=facts)


@pytest.mark.parametrize(
    ("count", "small", "apart"), [(None, True, False), (2, True, False), (8, False, True)]
)
def test_either_the_batch_is_too_small_or_it_is_not_pooled(count, small, apart):
    seen = _of(None if count is None else ProcessFacts(count))
    assert bool(list(micro_batch(seen))) == small
    assert bool(list(unsynchronised_statistics(seen))) == apart


@pytest.mark.parametrize("kind", ["torch.nn.SyncBatchNorm", "convscope.norm.SyncBatchNorm"])
def test_synchronised_layers_have_the_values_of_all(kind):
    seen = _of(ProcessFacts(8), kind=kind)
    assert list(micro_batch(seen)) == list(unsynchronised_statistics(seen)) == []


def test_the_effect_of_unsynchronised_statistics():
    (finding,) = unsynchronised_statistics(_of(ProcessFacts(8)))
    effective = finding.evidence[0].value
    assert finding.effect == pytest.approx(16 / effective)
    assert finding.evidence[1].value == pytest.approx(8 * effective)


def test_frozen_layers_are_silent():
    assert list(unsynchronised_statistics(_of(ProcessFacts(8), frozen=True))) == []


def _disagree(broadcast, **differences):
    return list(processes_disagree(_of(ProcessFacts(2, broadcast, differences))))


def test_what_moves_in_a_step_is_silent_and_what_is_off_is_not():
    assert _disagree(True, bn=(0.1, 0.2)) == []
    (finding,) = _disagree(True, a=(0.1, 0.2), bn=(1.0, 0.2))
    assert (finding.address, finding.effect) == ("bn", 2.0)
    assert "forward_sync_buffers" not in finding.remedy


def test_nothing_may_differ_that_nothing_makes_alike():
    (finding,) = _disagree(False, bn=(1e-6, 0.0))
    assert finding.effect == 1.0
    assert "forward_sync_buffers=True" in finding.remedy


def test_the_worst_layer_is_first():
    assert [finding.address for finding in _disagree(None, a=(0.6, 0.0), b=(9.0, 0.0))] == ["b", "a"]


def test_one_process_alone_compares_nothing():
    (note,) = processes_disagree(_of(ProcessFacts(2, compared=False)))
    assert isinstance(note, Unchecked)
    assert list(processes_disagree(_of(None))) == []
