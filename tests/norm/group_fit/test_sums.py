import numpy as np
import pytest
import torch

from convscope.norm import GroupNorm
from convscope.norm.group_fit import sums as module
from convscope.norm.group_fit.sums import fitted, merged_pairs, pair_sums, residual
from norm.group_fit.lstsq_oracle import least_squares, x_hat

SHAPES = [(9, 6), (5, 6, 7), (4, 6, 3, 5), (1, 6, 6, 6), (3, 6, 2, 3, 2)]


def assert_least_squares(sums, x, target, groups, eps, tolerance=1e-9):
    weight, bias, error = least_squares(x, target, groups, eps)
    found = fitted(sums)
    assert torch.allclose(found[0], weight, atol=tolerance, rtol=tolerance)
    assert torch.allclose(found[1], bias, atol=tolerance, rtol=tolerance)
    assert residual(sums, *found) == pytest.approx(error, rel=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_against_lstsq_over_written_out_values(shape, groups, eps):
    x, target = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64) + 3
    assert_least_squares(pair_sums(x, target, groups, eps), x, target, groups, eps)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_large_means_lose_no_digits(layout):
    x = (torch.randn(6, 4, 5, 3) + 1e4).contiguous(memory_format=layout)
    target = 1e6 + x * 0.5 + torch.randn(6, 4, 5, 3)
    assert_least_squares(pair_sums(x, target, 2, 1e-5), x, target, 2, 1e-5, tolerance=1e-7)


def test_in_chunks_as_at_once(monkeypatch):
    x, target = torch.randn(7, 4, 3, 3), torch.randn(7, 4, 3, 3) + 100
    monkeypatch.setattr(module, "_CHUNK_VALUES", 2 * x[0].numel())
    assert_least_squares(pair_sums(x, target, 2, 1e-5), x, target, 2, 1e-5)


def test_batches_merge_into_the_whole_whatever_their_sizes():
    x, target = torch.randn(11, 6, 4), torch.randn(11, 6, 4) + 50
    parts = [pair_sums(*pair, 3, 1e-5) for pair in zip(x.split([8, 1, 2]), target.split([8, 1, 2]))]
    assert_least_squares(merged_pairs(parts), x, target, 3, 1e-5)
    assert_least_squares(merged_pairs(parts[::-1]), x, target, 3, 1e-5)


def test_batches_of_different_map_sizes_merge():
    pairs = [(torch.randn(3, 4, size), torch.randn(3, 4, size)) for size in (2, 7)]
    sums = merged_pairs([pair_sums(*pair, 2, 1e-5) for pair in pairs])
    solutions = []
    for channel in range(4):
        values = np.concatenate([x_hat(x, 2, 1e-5)[:, channel].ravel() for x, _ in pairs])
        goal = np.concatenate([target[:, channel].double().numpy().ravel() for _, target in pairs])
        solutions.append(np.polyfit(values, goal, 1))
    weight, bias = torch.from_numpy(np.array(solutions).T.copy())
    assert torch.allclose(fitted(sums)[0], weight, atol=1e-9)
    assert torch.allclose(fitted(sums)[1], bias, atol=1e-9)


def test_the_residual_of_any_weight_and_bias():
    x, target = torch.randn(5, 4, 6), torch.randn(5, 4, 6)
    weight, bias = torch.randn(2, 4, dtype=torch.float64)
    output = torch.from_numpy(x_hat(x, 2, 1e-5)) * weight[:, None] + bias[:, None]
    spread = (target - target.mean((0, 2), keepdim=True)).double().square().sum()
    expected = float(((output - target).square().sum() / spread).sqrt())
    assert residual(pair_sums(x, target, 2, 1e-5), weight, bias) == pytest.approx(expected, rel=1e-6)


def test_a_channel_whose_x_hat_is_constant_gets_the_mean():
    """Two features in one group are −1 and 1, or 1 and −1, whatever they were."""
    x = torch.rand(8, 2, dtype=torch.float64)
    x[:, 1] += 2
    target = torch.randn(8, 2, dtype=torch.float64)
    sums = pair_sums(x, target, 1, 0.0)
    weight, bias = fitted(sums)
    assert weight.tolist() == [0, 0]
    assert torch.allclose(bias, target.mean(0), atol=1e-12)
    assert residual(sums, weight, bias) == pytest.approx(1)


def test_a_target_that_does_not_vary():
    x = torch.randn(5, 4, 6)
    sums = pair_sums(x, torch.full_like(x, 3.0), 2, 1e-5)
    weight, bias = fitted(sums)
    assert weight.abs().max() < 1e-12
    assert torch.allclose(bias, torch.full((4,), 3.0, dtype=torch.float64))
    assert residual(sums, torch.zeros(4).double(), torch.full((4,), 3.0).double()) == 0
    assert residual(sums, torch.ones(4).double(), bias) == float("inf")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float64(dtype):
    x, target = (torch.randn(4, 6, 5, 5) * 3 + 2).to(dtype), torch.randn(4, 6, 5, 5).to(dtype)
    assert_least_squares(pair_sums(x, target, 3, 1e-5), x, target, 3, 1e-5)


def test_the_fit_is_that_of_our_group_norm():
    """The layer with these parameters has the error that the sums tell."""
    x, target = torch.randn(6, 8, 4, 4, dtype=torch.float64), torch.randn(6, 8, 4, 4, dtype=torch.float64)
    sums = pair_sums(x, target, 4, 1e-3)
    layer = GroupNorm(4, 8, eps=1e-3).double()
    weight, bias = fitted(sums)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    error = (layer(x).detach() - target).square().sum() / (
        target - target.mean((0, 2, 3), keepdim=True)
    ).square().sum()
    assert residual(sums, weight, bias) == pytest.approx(float(error.sqrt()), rel=1e-9)
