import numpy as np
import pytest
import torch

from convscope.sight.picturing.tiles import (
    as_picture,
    as_rgb,
    as_signed_tile,
    as_tile,
    filter_grid,
    signed_display,
    tile_of,
)


def test_zero_is_grey_and_the_sign_survives():
    shown = signed_display(np.array([[[-4.0, 0.0, 2.0]]], np.float32))
    assert shown.tolist() == [[[0.0, 0.5, 0.75]]]
    assert (signed_display(np.zeros((1, 2, 2), np.float32)) == 0.5).all()


def test_one_number_in_200_that_is_not_zero_is_cut_off():
    pixels = np.zeros((3, 100, 100), np.float32)
    numbers = np.arange(1, 1001, dtype=np.float32)
    pixels[1, 20:30] = np.random.permutation(numbers).reshape(10, 100) * np.float32(-1)
    scale = sorted(numbers)[int(np.ceil(0.995 * 999))]
    expected = [max(0.5 - each / (2 * scale), 0) for each in pixels[1, 20:30].flatten().astype(float) * -1]
    assert signed_display(pixels)[1, 20:30].flatten() == pytest.approx(expected, abs=1e-6)
    assert np.array_equal(as_picture(torch.tensor(pixels.transpose(1, 2, 0))), as_rgb(signed_display(pixels)))


def test_at_most_nine_tenths_of_the_range_are_cut_off():
    pixels = np.full((3, 30, 30), 1.0, np.float32)
    pixels[0, 0, 0] = 1000
    shown = signed_display(pixels)
    assert shown[0, 0, 0] == 1
    assert shown[1, 1, 1] == pytest.approx(0.5 + 1 / 200)


def test_signed_pictures_are_reduced_before_they_are_scaled():
    # Stripes of a pixel whose mean is a hundredth of their size; loops make the means.
    pixels = np.tile(np.array([1.0, -0.98], np.float32), (3, 96, 48))
    pixels[:, 48:] *= -1
    tile = as_signed_tile(pixels, 48)
    means = pixels.reshape(3, 48, 2, 48, 2).mean((2, 4))
    assert abs(tile.transpose(2, 0, 1) / 255.0 - (0.5 + means / (2 * abs(means).max()))).max() < 0.003
    assert (tile[0, 0, 0], tile[-1, -1, 0]) == (255, 0)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_becomes_colours(channels):
    picture = as_rgb(np.linspace(0, 1, channels * 6, dtype=np.float32).reshape(channels, 2, 3))
    assert picture.shape == (2, 3, 3)
    assert picture.dtype == np.uint8


@pytest.mark.parametrize(
    ("extent", "tile"), [(1, 28), (7, 28), (11, 33), (27, 54), (28, 28), (48, 48), (49, 48), (224, 48)]
)
def test_small_pictures_are_enlarged_by_whole_numbers(extent, tile):
    assert tile_of(extent) == tile


def test_wide_pictures_keep_their_proportions_in_the_middle():
    pixels = as_tile(np.full((50, 200, 3), 255, np.uint8), 48)[..., 0]
    assert (pixels[18:30] == 255).all()
    assert (pixels[:18] == 128).all()
    assert (pixels[30:] == 128).all()


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_filters_stand_beside_one_another(channels):
    weight = torch.randn(7, channels, 2, 4)
    grid = filter_grid(weight)
    assert grid.shape == (3 * 3 - 1, 3 * 5 - 1, 3)
    shown = weight[5] if channels == 3 else weight[5].mean(0, keepdim=True).expand(3, -1, -1)
    expected = 0.5 + shown / (2 * shown.abs().max())
    torch.testing.assert_close(grid[3:5, 10:14], expected.permute(1, 2, 0))
