"""Strengths, copies and Zeiler and Fergus's radius."""

import math

import pytest
import torch

from convscope.sight.stems.filters import copies, dominance, equivalent_radius, fences, strength


def test_strength_is_the_root_mean_square_times_the_scale():
    weight = torch.tensor([[[[3.0, 4.0]]], [[[0.0, 1.0]]]])
    plain = strength(weight, None)
    assert plain.tolist() == pytest.approx([math.sqrt(12.5), math.sqrt(0.5)])
    scaled = strength(weight, torch.tensor([-2.0, 0.5], dtype=torch.float64))
    assert scaled.tolist() == pytest.approx([2 * math.sqrt(12.5), 0.5 * math.sqrt(0.5)])


def test_filters_of_zeros_do_not_lower_the_median():
    assert dominance(torch.tensor([0.0, 0.0, 0.0, 2.0, 4.0]).double()).tolist() == pytest.approx(
        [0, 0, 0, 2 / 3, 4 / 3]
    )
    assert dominance(torch.zeros(3).double()).tolist() == [0, 0, 0]


def test_fences_are_tukeys_on_logarithms():
    found = torch.tensor([math.exp(value) for value in (-1.0, 0.0, 1.0, 2.0, 3.0)], dtype=torch.float64)
    low, high = fences(found)  # quartiles of the logarithms: 0 and 2
    assert math.log(low) == pytest.approx(-3)
    assert math.log(high) == pytest.approx(5)
    assert fences(torch.zeros(4).double()) == (0.0, math.inf)


def test_copies_are_grouped_also_negatives_and_chains():
    base, other = torch.randn(2, 3, 5, 5).double()
    step = 0.2 * torch.nn.functional.normalize(torch.randn(3, 5, 5).double().flatten(), dim=0).view(3, 5, 5)
    norm = base.norm()
    bank = torch.stack([base, other, -3 * base, base + norm * step, torch.zeros_like(base)])
    flat = torch.nn.functional.normalize(bank.flatten(1), eps=1e-9)
    assert 0.95 < (flat[0] @ flat[3]).abs() < 1  # the premise
    assert copies(bank) == ((0, 2, 3),)
    assert copies(torch.randn(64, 3, 7, 7)) == ()


def test_the_radius_makes_the_same_responses():
    """A filter of the radius answers to a full-scale pixel as ZF's does to 128."""
    for largest in (1.0, 2.64, 128.0, 255.0):
        assert equivalent_radius(largest) * largest == pytest.approx(0.1 * 128)
    assert equivalent_radius(0.0) is None
