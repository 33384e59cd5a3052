"""The mid-frequency gap on banks whose answer is known."""

import math

import pytest
import torch

from convscope.sight.stems.coverage import coverage, gabor
from convscope.sight.stems.response import responses


def bank(frequencies, kernel, turns=6):
    return torch.stack(
        [
            gabor(frequency, math.pi * turn / turns, phase, kernel)
            for frequency in frequencies
            for turn in range(turns)
            for phase in (0.0, math.pi / 2)
        ]
    )[:, None]


def found(weight, kernel):
    return coverage(responses(weight), torch.ones(len(weight), dtype=torch.bool), kernel)


@pytest.mark.parametrize("size", [7, 11])
def test_random_even_and_trained_like_banks_have_no_gap(size):
    kernel = (size, size)
    torch.manual_seed(1)
    assert found(torch.randn(64, 3, *kernel), kernel).gap == 0
    assert found(bank([0.07, 0.1, 0.14, 0.2, 0.28, 0.4], kernel), kernel).gap < 0.05
    # As trained stems are: edges of many sizes in grey, smooth blobs in colour.
    edges = bank([0.1, 0.15, 0.2, 0.25], kernel).expand(-1, 3, -1, -1)
    axis = torch.arange(size).double() - (size - 1) / 2
    blob = torch.exp(-(axis[:, None].square() + axis.square()) / (2 * (size / 4) ** 2))
    colours = torch.tensor([[1.0, -1, 0], [1, 1, -2], [-1, 0, 1]], dtype=torch.float64)
    blobs = (colours[:, :, None, None] * blob).repeat(4, 1, 1, 1)
    assert found(torch.cat([edges, blobs]), kernel).gap < 0.3


@pytest.mark.parametrize("size", [7, 11])
def test_blobs_and_finest_edges_alone_have_a_gap(size):
    kernel = (size, size)
    axis = torch.arange(size).double() - (size - 1) / 2
    blobs = torch.exp(-(axis[:, None].square() + axis.square()) / (2 * (size / 3) ** 2)).expand(24, 1, -1, -1)
    fine = bank([0.42, 0.46], kernel)
    assert found(torch.cat([blobs, fine]), kernel).gap > 0.5
    # One side alone is no gap.
    assert found(fine, kernel).gap == 0
    assert found(blobs, kernel).gap == 0


def test_octaves_are_areas_for_random_weights_and_sum_to_one():
    result = found(torch.randn(400, 3, 9, 9), (9, 9))
    for name in ("share", "reference", "random"):
        assert sum(getattr(octave, name) for octave in result.octaves) == pytest.approx(1)
    for octave in result.octaves:
        assert octave.share == pytest.approx(octave.random, abs=0.01)
    # The ring between two radii has the area π (b² − a²); the highest octave has the rest of the square.
    assert result.octaves[2].random == pytest.approx(math.pi * (0.125**2 - 0.0625**2), rel=0.03)
    assert result.octaves[4].random == pytest.approx(1 - math.pi * 0.25**2, rel=0.01)
    # … up to the corners of the square, half a cycle per pixel in both directions.
    assert [octave.high for octave in result.octaves[3:]] == [0.25, pytest.approx(math.hypot(0.5, 0.5))]
    assert result.colour == pytest.approx(2 / 3, abs=0.02)


def test_small_kernels_and_dead_banks_have_no_index():
    assert found(torch.randn(8, 3, 5, 5), (5, 5)).gap is None
    nothing = coverage(responses(torch.zeros(4, 3, 7, 7)), torch.zeros(4, dtype=torch.bool), (7, 7))
    assert nothing.gap is None
    assert all(octave.share == 0 for octave in nothing.octaves)
