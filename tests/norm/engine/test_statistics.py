import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convscope.norm.engine.statistics import moments, total, widened


def float64_statistics(x, dims):
    """Mean and biased variance by numpy's two passes in float64: another code base, another precision."""
    array = x.detach().double().numpy()
    mean = array.mean(axis=dims, keepdims=True)
    return mean, np.square(array - mean).mean(axis=dims, keepdims=True)


def assert_accurate(x, dims, variance_tolerance=1e-5):
    found = moments(x, dims)
    mean, variance = float64_statistics(x, dims)
    one_number = (found.shift + found.residual).double().numpy()
    ulp = np.spacing(np.abs(mean).astype(np.float32)).astype(np.float64)
    # Where the mean is next to nothing, its units are smaller than what a float32 sum of the values has.
    floor = 1e-7 * np.sqrt(variance)
    assert (np.abs(one_number - mean) <= 2 * ulp + floor).all()
    assert (np.abs(found.variance.double().numpy() - variance) <= variance_tolerance * variance).all()
    two_numbers = found.shift.double().numpy() + found.residual.double().numpy()
    assert (np.abs(two_numbers - mean) <= 2e-6 * np.sqrt(variance)).all()


LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1e2, 1e3, 1e4, -1e4])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_float32_statistics_of_2_to_the_20_values(ratio, layout):
    """PyTorch 2.13's own batch norm gives variance 93 for ratio 1e3 in channels_last, 18,443 for 1e4."""
    x = (torch.randn(64, 2, 128, 128) + ratio).contiguous(memory_format=layout)
    assert_accurate(x, (0, 2, 3))


@pytest.mark.parametrize("shape", [(2**20, 2), (1, 2, 2**20), (2, 2, 2**19), (1024, 2, 1024)])
def test_float32_statistics_of_2_to_the_20_values_in_other_shapes(shape):
    x = torch.randn(shape) + 1e4
    assert_accurate(x, tuple(dim for dim in range(len(shape)) if dim != 1))


def test_a_tiny_spread_around_a_large_mean():
    x = torch.full((64, 3, 8, 8), 4096.0)
    x[::2] += 2.0**-11  # the next float32 numbers: mean/std = 1.7e7
    found = moments(x, (0, 2, 3))
    assert torch.equal(found.variance.flatten(), torch.full((3,), 2.0**-24))


def test_outliers_of_the_first_sample_do_not_spoil_the_shift():
    x = torch.randn(256, 3, 16, 16) + 1e4
    x[0] = 0
    assert_accurate(x, (0, 2, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_precision_accumulates_in_float32(dtype, layout):
    x = (torch.randn(32, 3, 32, 32) * 300 + 1000).to(dtype).contiguous(memory_format=layout)
    assert x.square().isinf().any() or dtype == torch.bfloat16
    found = moments(x, (0, 2, 3))
    assert found.variance.dtype == torch.float32
    assert_accurate(x, (0, 2, 3))


def test_constant_channels_have_variance_zero():
    found = moments(torch.full((5, 3, 7), 0.1), (0, 2))
    assert torch.equal(found.variance, torch.zeros(1, 3, 1))


def test_one_value():
    found = moments(torch.tensor([[3.0]]), (0,))
    assert (found.shift + found.residual).item() == 3
    assert found.variance.item() == 0


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    choice=st.sets(st.integers(0, 4), min_size=1),
    flip=st.booleans(),
)
def test_total_is_the_sum_for_any_dimensions_and_layout(shape, choice, flip):
    x = torch.arange(float(np.prod(shape)), dtype=torch.float64).view(shape)
    x = x.transpose(0, -1) if flip else x
    dims = tuple(sorted(dim for dim in choice if dim < x.dim()))
    expected = x.numpy().sum(axis=dims, keepdims=True) if dims else x.numpy()
    assert np.array_equal(total(x, dims).numpy(), expected)


def test_widened_leaves_wide_dtypes_alone():
    x = torch.randn(2, dtype=torch.float64)
    assert widened(x) is x
    assert widened(x.half()).dtype == torch.float32


def test_the_input_is_not_written_to():
    x = torch.randn(4, 3, 5)
    before = x.clone()
    moments(x, (0, 2))
    assert torch.equal(x, before)
