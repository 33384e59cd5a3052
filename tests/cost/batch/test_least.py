"""The least memory of a step, against the search for the largest batch and against the allocator."""

import pytest
from torch import nn

import convscope as cs
from convscope.core.errors import ConvscopeError
from convscope.cost.batch.bounds import MARGIN_SHARE
from convscope.cost.batch.least import least_memory
from convscope.cost.memory.constants import gpu_figures

PLAN = cs.TrainingPlan()


def _tape(batch=16, device="cuda", plan=PLAN):
    layers = [nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 32, 3), nn.Flatten()]
    return cs.record(nn.Sequential(*layers), (batch, 3, 64, 64), plan, device=device)


@pytest.mark.parametrize("plan", [None, PLAN])
def test_it_is_more_than_the_tensors_and_its_parts_add_up(plan):
    tape = _tape(plan=plan)
    found, forecast = least_memory(tape, gpu="T4"), cs.cost.forecast(tape, gpu="T4")
    assert forecast.allocated_peak_bytes <= found.capacity_bytes <= forecast.reserved_range_bytes[1] + 2**21
    assert found.context_bytes == gpu_figures("T4").context_range_bytes[1]
    assert found.total_bytes == found.capacity_bytes + found.context_bytes + found.margin_bytes
    assert found.margin_bytes == pytest.approx(MARGIN_SHARE * found.total_bytes, rel=1e-6)


def test_larger_batches_need_more():
    needs = [least_memory(_tape(batch)).total_bytes for batch in (4, 16, 64)]
    assert needs == sorted(set(needs))


def test_on_the_cpu_it_is_the_sum_of_the_tensors():
    tape = _tape(device="cpu")
    found = least_memory(tape)
    assert found.total_bytes == found.capacity_bytes == cs.cost.forecast(tape).allocated_peak_bytes
    assert (found.context_bytes, found.margin_bytes) == (0, 0)


def test_an_unknown_gpu_is_refused():
    with pytest.raises(ConvscopeError, match="sm12345"):
        least_memory(_tape(), gpu="sm12345")
