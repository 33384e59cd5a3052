"""Statistics compared between processes; a process that checks alone goes on."""

import math

import pytest
import torch
from torch import nn

from checkup.measuring.meeting_processes import NUM_PROCESSES, network, work
from convscope.checkup.measuring.processes import has_synchronised, process_facts, undistributed
from convscope.norm import convert
from processes import in_processes


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return in_processes(NUM_PROCESSES, work, tmp_path_factory.mktemp("processes"))


def test_a_single_process_has_nothing_to_compare():
    assert process_facts(network()) is None
    net = network()
    assert undistributed(net) is net


@pytest.mark.slow
def test_differences_are_those_of_the_worst_channel(found):
    mean, log_variance = found[0]["together"].disagreements["1"]
    assert found[0]["together"] == found[1]["together"]
    assert list(found[0]["together"].disagreements) == ["1"]
    assert mean == pytest.approx(2.0 / math.sqrt((1 + 4) / 2 + 1e-5))
    assert log_variance == pytest.approx(math.log((4 + 1e-5) / (1 + 1e-5)))


@pytest.mark.slow
def test_alike_networks_have_no_differences(found):
    for process in found:
        assert process["again"].compared
        assert process["again"].disagreements == {}


@pytest.mark.slow
def test_one_process_alone_does_not_wait_for_ever(found):
    assert not found[0]["alone"].compared
    for what in ("wrapped alone", "synchronised alone"):
        addresses, unchecked = found[0][what]
        assert addresses == ["1#1", "4#1"]
        assert "processes-disagree" in unchecked
    assert "redundant-bias" in found[0]["synchronised alone"][1]
    assert "redundant-bias" not in found[0]["wrapped alone"][1]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["wrapped", "synchronised"])
def test_all_processes_check_as_one_would(found, what):
    for process in found:
        addresses, unchecked = process[what]
        assert addresses == ["1#1", "4#1"]
        assert not {"processes-disagree", "redundant-bias"} & set(unchecked)


def test_a_simulated_group_compares_nothing():
    from torch import distributed
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("fake", rank=0, world_size=4, store=FakeStore())
    try:
        facts = process_facts(network())
    finally:
        distributed.destroy_process_group()
    assert (facts.count, facts.compared, facts.disagreements) == (4, False, {})


def test_layers_that_wait_for_others():
    net = network()
    assert not has_synchronised(net)
    convert(net, "sync")
    assert has_synchronised(net)
    assert has_synchronised(nn.SyncBatchNorm(3))
    assert not has_synchronised(torch.nn.GroupNorm(1, 3))
