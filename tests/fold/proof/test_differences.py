"""Values against what their gauges say: rounding is let through, errors aren't, channel by channel."""

import pytest
import torch

from convscope.fold.planning.plan import Place
from convscope.fold.proof.differences import apart_by_shift, error_at

GAMMAS = (1e-14, 1e-8, 1.0, -3.0)
BETAS = (0.5, -2.0, 0.1, 1.0)


def gauged():
    """x, y = γ x + β of each channel, and a place where x is to stand for y: a = 1 / γ, b = −β / γ."""
    x = torch.randn(3, 4, 6, 5, dtype=torch.float64)
    gamma, beta = (torch.tensor(numbers, dtype=torch.float64).view(1, 4, 1, 1) for numbers in (GAMMAS, BETAS))
    return x, gamma * x + beta, Place("0#1", 1 / gamma, -beta / gamma)


def test_what_a_tiny_gamma_loses_is_no_error():
    x, y, place = gauged()
    lost = (y * place.scale + place.shift - x)[:, 0].abs().max().item()
    assert lost > 1e-4  # y hardly knows x any more
    assert error_at(place, y, x) == 0


@pytest.mark.parametrize("channel", [1, 2, 3])
@pytest.mark.parametrize("change", [lambda v: 1.001 * v, lambda v: v + 1e-3, lambda v: v.flip(-1)])
def test_an_error_in_a_channel_is_seen_beside_it(channel, change):
    x, y, place = gauged()
    x[:, channel] = change(x[:, channel])
    assert error_at(place, y, x) > 1e-5


def test_an_error_in_the_channel_itself_is_seen_where_its_values_tell():
    """β / γ = 5e13 is what the shift is: x is known to about one, and a forgotten shift is far beyond."""
    x, y, place = gauged()
    x[:, 0] -= place.shift[:, 0]
    assert error_at(place, y, x) > 0.5


def test_infinite_values_are_no_rounding():
    x, y, place = gauged()
    y[0, 2, 0, 0] = float("inf")
    assert error_at(place, y, x) == float("inf")


def test_constant_differences_are_shifts():
    x, _, _ = gauged()
    ones = Place("0#1", torch.ones(1, 4, 1, 1), torch.zeros(1, 4, 1, 1))
    shift = torch.tensor([1.0, 0.0, -2.0, 3.0], dtype=torch.float64).view(1, 4, 1, 1)
    assert apart_by_shift(ones, x, x + shift)
    assert not apart_by_shift(ones, x, 1.01 * x)
    assert not apart_by_shift(ones, x, x + torch.randn(3, 1, 1, 1))
    assert not apart_by_shift(ones, x, x[:, :, :3])
    assert not apart_by_shift(ones, x, None)
    assert not apart_by_shift(ones, x, x * float("nan"))
