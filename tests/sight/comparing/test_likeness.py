"""Correlations against loops over numbers, and chance against units that have nothing in common."""

import math

import pytest
import torch

from convscope.sight.comparing.likeness import likeness


def pearson(first, second):
    means = math.fsum(first) / len(first), math.fsum(second) / len(second)
    one, other = [x - means[0] for x in first], [x - means[1] for x in second]
    return math.fsum(a * b for a, b in zip(one, other)) / math.sqrt(
        math.fsum(a * a for a in one) * math.fsum(b * b for b in other)
    )


def test_correlations_equal_loops():
    first, second = torch.randn(5, 31) * 1e-3 + 7, torch.randn(4, 31) * 1e4
    found = likeness(first, second)
    for one in range(5):
        for other in range(4):
            expected = pearson(first[one].double().tolist(), second[other].double().tolist())
            assert found.of(one, other) == pytest.approx(expected, abs=1e-12)
        nearest = max(range(4), key=lambda other: found.of(one, other))
        assert found.nearest(one, side=0) == (nearest, found.of(one, nearest))
    assert found.nearest(2, side=1)[0] == max(range(5), key=lambda one: found.of(one, 2))
    assert found.same_channel_is_nearest(0) is None


def test_images_that_a_layer_has_not_seen_do_not_count():
    first, second = torch.randn(3, 20), torch.randn(3, 20)
    expected = likeness(first[:, 5:], second[:, 5:])
    first[:, 1], first[1, 4], second[:, [0, 2, 3]] = torch.nan, torch.nan, torch.nan
    found = likeness(first, second)
    assert found.num_images == 15
    assert torch.equal(found.correlations, expected.correlations)


def test_constant_and_infinite_profiles_have_no_correlation():
    first = torch.randn(5, 40)
    first[1], first[2], first[3, 7] = 0, 12345.678, torch.inf
    first[4] = 1000 + 1e-4 * torch.randn(40)  # float32's rounding
    found = likeness(first, first)
    assert found.has_profile[0].tolist() == [True, False, False, False, False]
    assert found.of(1, 1) is None
    assert found.of(0, 3) is None
    assert found.nearest(1, side=0) is None
    assert found.nearest(0, side=1) == (0, pytest.approx(1))
    assert likeness(first[1:4], first).chance is None


@pytest.mark.parametrize("count", [0, 1])
def test_without_variation_there_is_nothing(count):
    found = likeness(torch.rand(3, count), torch.rand(3, count))
    assert (found.chance, found.nearest(0, side=0), found.num_images) == (None, None, count)


@pytest.mark.parametrize("count", [2, 3])
def test_two_or_three_images_prove_nothing(count):
    profile = torch.rand(6, count)
    found = likeness(profile, profile)
    assert found.nearest(0, side=0)[1] == pytest.approx(1)
    assert found.nearest(0, side=0)[1] <= found.chance.nearest


@pytest.mark.parametrize("common", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("widths", [(64, 64), (64, 40)])
def test_one_in_twenty_unrelated_units_exceeds_chance(common, widths):
    """However much all units have in common, such as the images' contrast."""
    above = {"partner": [], "nearest": []}
    for seed in range(12):
        random = torch.Generator().manual_seed(seed)
        contrast = common * torch.randn(1, 128, generator=random)
        first, second = (torch.randn(width, 128, generator=random) + contrast for width in widths)
        found = likeness(first, second)
        above["partner"].append((found.correlations.diagonal() > found.chance.partner).double().mean())
        nearest = [found.nearest(unit, side=0)[1] > found.chance.nearest for unit in range(widths[0])]
        above["nearest"].append(torch.tensor(nearest).double().mean())
    for kind, shares in above.items():
        share = float(torch.stack(shares).mean())
        assert 0.005 < share < 0.07, (kind, share)


def test_permuting_images_alone_would_call_contrast_a_match():
    """What the above guards against: chance from permutations only is far below what contrast gives."""
    contrast = 3 * torch.randn(1, 128)
    first, second = torch.randn(30, 128) + contrast, torch.randn(30, 128) + contrast
    permuted = likeness(first, second[:, torch.randperm(128)])
    assert float(permuted.correlations.abs().amax()) < likeness(first, second).correlations.median() - 0.3


def test_copies_within_both_layers_are_matched():
    profile = torch.randn(4, 60).repeat(3, 1)
    found = likeness(profile, profile)
    assert all(found.nearest(unit, side=0)[1] > found.chance.nearest for unit in range(12))
    assert all(found.same_channel_is_nearest(unit) for unit in range(12))


def test_it_is_the_same_every_time_and_leaves_random_numbers_alone():
    first, second = torch.randn(6, 50), torch.randn(9, 50)
    before = torch.get_rng_state()
    assert likeness(first, second).chance == likeness(first, second).chance
    assert torch.equal(torch.get_rng_state(), before)
