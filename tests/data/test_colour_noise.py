"""Colour noise against NumPy's covariance and the statistics of many draws."""

import numpy as np
import pytest
import torch

from convscope.core.errors import ConvscopeError
from convscope.data import ColourNoise, ImageSet, Normalisation, measured_colour_noise


class Colourful:
    """Pictures whose channels vary together."""

    def __init__(self, count, channels=3):
        random = np.random.default_rng(1)
        mix = random.normal(size=(channels, channels))
        raw = random.normal(size=(count, 6, 5, channels)) @ mix * 20 + 120
        self.pixels = raw.clip(0, 255).astype(np.uint8)
        self.labels = (0,) * count

    def read(self, index):
        return self.pixels[index]


STD = (0.2, 0.3, 0.4)


def images(count=30):
    return ImageSet(Colourful(count), range(count), Normalisation((0.5, 0.4, 0.3), STD))


def test_directions_are_those_of_the_pixels_covariance():
    given = images()
    noise = measured_colour_noise(given)
    pixels = given.pictures.pixels.reshape(-1, 3) / 255
    covariance = np.cov(pixels, rowvar=False, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    np.testing.assert_allclose(noise.eigenvalues, values[::-1], rtol=1e-9)
    for ours, theirs in zip(noise.eigenvectors, vectors.T[::-1], strict=True):
        assert abs(np.dot(ours, theirs)) == pytest.approx(1, abs=1e-9)
        assert max(ours, key=abs) > 0
    assert noise.std == STD


def test_at_most_two_thousand_evenly_spaced_images_are_measured():
    given = images(4001)
    pixels = given.pictures.pixels[[round(place * 4001 / 2000 - 1e-9) for place in range(2000)]]
    values = np.linalg.eigvalsh(np.cov(pixels.reshape(-1, 3) / 255, rowvar=False, bias=True))
    np.testing.assert_allclose(measured_colour_noise(given).eigenvalues, values[::-1], rtol=1e-9)


def test_what_is_added_is_one_colour_for_each_image_with_the_published_spread():
    noise = measured_colour_noise(images())
    count = 20_000
    before = torch.zeros(count, 3, 2, 2, dtype=torch.float64)
    added = noise(before, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.zeros_like(before))
    assert (added == added[:, :, :1, :1]).all()
    colours = added[:, :, 0, 0].numpy() * STD  # on the scale of 0 to 1
    values, vectors = np.array(noise.eigenvalues), np.array(noise.eigenvectors)
    expected = sum((0.1 * value) ** 2 * np.outer(vector, vector) for value, vector in zip(values, vectors))
    spread = np.cov(colours, rowvar=False)
    assert np.abs(spread - expected).max() < 0.05 * np.abs(expected).max()
    assert np.abs(colours.mean(0)).max() < 5 * np.sqrt(expected.diagonal().max() / count)


def test_one_draw_written_out():
    noise = ColourNoise((0.2, 0.1), ((0.6, 0.8), (0.8, -0.6)), (0.5, 0.25))
    alpha = 0.1 * torch.randn(3, 2, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    given = torch.rand(3, 2, 4, 5)
    found = noise(given, torch.Generator().manual_seed(7))
    for number in range(3):
        first, second = alpha[number].tolist()
        for channel, std in enumerate(noise.std):
            colour = first * 0.2 * (0.6, 0.8)[channel] + second * 0.1 * (0.8, -0.6)[channel]
            torch.testing.assert_close(found[number, channel], given[number, channel] + colour / std)
    assert found.dtype == torch.float32


def test_chance_comes_from_the_generator_alone():
    noise = measured_colour_noise(images())
    given = torch.rand(4, 3, 2, 2)
    before = torch.get_rng_state()
    first = noise(given, torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(noise(given, torch.Generator().manual_seed(1)), first)
    assert not torch.equal(noise(given, torch.Generator().manual_seed(2)), first)
    one = noise(given[0], torch.Generator().manual_seed(1))
    assert torch.equal(one, noise(given[:1], torch.Generator().manual_seed(1))[0])


def test_grey_images_and_flat_ones_have_noise_too():
    grey = ImageSet(Colourful(5, 1), range(5), Normalisation((0.5,), (0.5,)))
    noise = measured_colour_noise(grey)
    assert noise.eigenvalues[0] == pytest.approx(np.var(grey.pictures.pixels / 255))
    assert noise.eigenvectors == ((1.0,),)
    grey.pictures.pixels[:] = 9
    assert measured_colour_noise(grey).eigenvalues == (0.0,)


def test_other_channels_and_empty_sets_are_refused():
    with pytest.raises(ConvscopeError, match="3 channels for images of 1"):
        measured_colour_noise(images())(torch.zeros(2, 1, 4, 4), torch.Generator())
    with pytest.raises(ConvscopeError, match="without images"):
        measured_colour_noise(images(0))
