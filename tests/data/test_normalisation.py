"""Mean and deviation, and the way back."""

import numpy as np
import pytest
import torch
from PIL import Image

from convscope.core.errors import ConvscopeError
from convscope.data import Normalisation, list_pictures, listed_normalisation
from convscope.data.normalisation import measured_normalisation


class Listed:
    def __init__(self, pictures):
        self.pictures = pictures
        self.labels = (0,) * len(pictures)

    def read(self, index):
        return self.pictures[index]


def test_measured_values_are_those_of_all_pixels():
    pictures = np.random.default_rng(0).integers(0, 256, (7, 5, 9, 3), dtype=np.uint8)
    pictures[..., 1] //= 3
    found = measured_normalisation(Listed(pictures), [0, 2, 3, 6])
    pixels = pictures[[0, 2, 3, 6]].reshape(-1, 3) / 255
    np.testing.assert_allclose(found.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std(0), rtol=1e-9)


def test_flat_channels_do_not_divide_by_zero():
    found = measured_normalisation(Listed(np.full((2, 4, 4, 1), 200, np.uint8)), [0, 1])
    assert found.std == (1 / 255,)
    assert found(np.full((4, 4, 1), 200, np.uint8)).abs().max() < 1e-3


def test_a_large_set_is_sampled_evenly():
    pictures = np.arange(256, dtype=np.uint8).repeat(8)[:, None, None, None]
    found = measured_normalisation(Listed(pictures), range(2048))
    assert abs(found.mean[0] * 255 - 127.5) < 0.5


def test_inverse_gives_pixels_back():
    pixels = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    normalise = Normalisation((0.2, 0.5, 0.7), (0.1, 0.3, 0.2))
    image = normalise(pixels)
    assert image.shape == (3, 6, 8)
    assert image.is_contiguous()
    back = normalise.inverse(torch.stack([image, image]))
    np.testing.assert_allclose(back[1].permute(1, 2, 0) * 255, pixels, atol=1e-3)


def test_listed_pictures_are_measured_as_they_are_fitted_and_damaged_ones_do_not_count(tmp_path):
    shades = [10, 90, 200]
    for shade in shades:
        Image.new("RGB", (30, 20), (shade, 0, 255)).save(tmp_path / f"{shade}.png")
    (tmp_path / "broken.png").write_bytes(b"")
    found = listed_normalisation(list_pictures(tmp_path), (8, 8), 3)
    np.testing.assert_allclose(found.mean, (100 / 255, 0, 1))
    np.testing.assert_allclose(found.std, (np.std(shades) / 255, 1 / 255, 1 / 255))
    for shade in shades:
        (tmp_path / f"{shade}.png").write_bytes(b"")
    with pytest.raises(ConvscopeError, match=r"pictures of folder .*: none of 4 can be read"):
        listed_normalisation(list_pictures(tmp_path), (8, 8), 3)
