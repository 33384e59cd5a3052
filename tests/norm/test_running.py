import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode

from convscope.norm.batch import BatchNorm1d
from convscope.norm.running import new_value_weight, unbiased, update_running


@settings(deadline=None, max_examples=50)
@given(
    beta=st.floats(0, 1),
    start=st.floats(-100, 100),
    values=st.lists(st.floats(-100, 100), min_size=1, max_size=6),
)
def test_running_average_follows_the_notes_formula_step_by_step(beta, start, values):
    running = torch.tensor([start], dtype=torch.float64)
    expected = start
    for value in values:
        update_running(running, torch.tensor([value], dtype=torch.float64), beta)
        expected = (1 - beta) * expected + beta * value
        assert running.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(values=st.lists(st.floats(-100, 100), min_size=1, max_size=8))
def test_no_momentum_gives_the_plain_average(values):
    running = torch.zeros(1, dtype=torch.float64)
    for number, value in enumerate(values, start=1):
        weight = new_value_weight(None, torch.tensor(number))
        update_running(running, torch.tensor([value], dtype=torch.float64), weight)
    assert running.item() == pytest.approx(sum(values) / len(values), rel=1e-12, abs=1e-12)


def test_weight_one_replaces_and_weight_zero_keeps():
    running = torch.tensor([3.0])
    update_running(running, torch.tensor([5.0]), 0.0)
    assert running.item() == 3
    update_running(running, torch.tensor([5.0]), 1.0)
    assert running.item() == 5


def test_nobody_counts_batches():
    assert new_value_weight(None, None) == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_buffer_keeps_its_dtype_and_storage(dtype):
    running = torch.zeros(2, dtype=dtype)
    pointer = running.data_ptr()
    update_running(running, torch.tensor([1.0, 2.0]), torch.tensor(0.25, dtype=torch.float64))
    assert (running.data_ptr(), running.dtype) == (pointer, dtype)
    assert running.tolist() == [0.25, 0.5]


def test_unbiased_variance():
    values = torch.randn(7, dtype=torch.float64)
    biased = ((values - values.mean()) ** 2).mean(0, keepdim=True)
    assert unbiased(biased, 7).item() == pytest.approx(values.var().item())


def test_cumulative_average_runs_on_simulated_tensors():
    with FakeTensorMode():
        layer = BatchNorm1d(3, momentum=None)
        layer(torch.randn(4, 3))
        assert layer.running_mean.shape == (3,)


def test_layer_moves_its_buffers_by_the_formula():
    layer = BatchNorm1d(2, momentum=0.3).double()
    mean, var = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    for step in range(4):
        x = torch.randn(5, 2, dtype=torch.float64) * (step + 1) + step
        layer(x)
        mean = (1 - 0.3) * mean + 0.3 * x.sum(0) / 5
        var = (1 - 0.3) * var + 0.3 * ((x - x.sum(0) / 5) ** 2).sum(0) / 4
    assert torch.allclose(layer.running_mean, mean, rtol=1e-12)
    assert torch.allclose(layer.running_var, var, rtol=1e-12)
    assert layer.num_batches_tracked.item() == 4
