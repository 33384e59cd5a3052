"""Two processes against one: the same statistics, whatever their shares of the data."""

import pytest
import torch

from convscope.norm.recalibration.recalibrate import recalibrate
from norm.recalibration.recalibrated import sequential_by_hand, two_pass
from norm.recalibration.recalibrating_processes import NUM_PROCESSES, SHARES, data, network, share, work
from processes import in_processes

METHODS = ("one-pass", "sequential")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return in_processes(NUM_PROCESSES, work, tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SHARES)
def test_statistics_are_those_of_all_data(found, name, method):
    (buffers, result), (others, other_result) = (each[name, method] for each in found)
    assert all(torch.equal(buffer, others[key]) for key, buffer in buffers.items())
    assert result == other_result
    assert result["num_samples"] == 21
    assert result["num_batches"] == 5
    mean, variance = two_pass(network()[0](data()).detach())
    assert torch.allclose(buffers["1.running_mean"], mean, rtol=1e-12)
    assert torch.allclose(buffers["1.running_var"], variance, rtol=1e-12)
    assert int(buffers["1.num_batches_tracked"]) == 100
    if method == "sequential":
        mean, variance = sequential_by_hand(network(), data())["4"]
        assert torch.allclose(buffers["4.running_mean"], mean, rtol=1e-10)
        assert torch.allclose(buffers["4.running_var"], variance, rtol=1e-10)


def test_a_group_of_one_stays_by_itself(found):
    net = network()
    recalibrate(net, share(0, "uneven"))
    assert all(torch.equal(buffer, found[0]["alone"][name]) for name, buffer in net.named_buffers())


def test_all_processes_decide_alike(found):
    assert found[0]["refused"] == found[1]["refused"]
    applied, before, after, num_samples = found[0]["refused"]
    assert not applied
    assert before == pytest.approx(-4.5, abs=1.5)
    assert after == pytest.approx(before / 25, rel=0.3)
    assert num_samples == 200


def test_a_failure_on_one_process_is_one_on_all(found):
    (here, kept), (there, kept_there) = (each["failed"] for each in found)
    assert here.startswith("process 1 of 2 failed (batch 0 with NaN or infinite values")
    assert there.startswith("batch 0 with NaN or infinite values")
    assert kept
    assert kept_there
