import numpy as np
import pytest
import torch
from PIL import Image

from convscope.core.errors import ConvscopeError
from convscope.data import list_pictures
from convscope.networks import Preprocessing
from convscope.sight.sources.pictures import Pictures, prepared

COLOUR = Preprocessing((8, 12), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), "bicubic", 0.9)


def saved(folder, **sizes):
    for name, (height, width) in sizes.items():
        Image.fromarray(np.random.randint(0, 256, (height, width, 3), np.uint8)).save(folder / f"{name}.png")
    return list_pictures(folder)


def opened(file):
    with Image.open(file) as image:
        return image.convert("RGB")


def test_pictures_are_prepared_as_the_network_says(tmp_path):
    listing = saved(tmp_path, a=(30, 20), b=(9, 40), c=(1, 1))
    images = Pictures(listing, COLOUR, [2, 0], 2)
    assert len(images) == 2
    for index, name in enumerate(["c.png", "a.png"]):
        assert images.name(index) == name
        assert torch.equal(images.read(index), COLOUR(opened(tmp_path / name)))
    grey = Preprocessing((8, 12), (0.5,), (0.5,))
    assert torch.equal(Pictures(listing, grey, range(3), 1).read(1), grey(opened(tmp_path / "b.png")))


def test_what_would_grow_beyond_bounds_is_damaged():
    """A picture of one row would be millions of columns wide at the height of a network's input."""
    thin = np.zeros((1, 60_000, 3), np.uint8)
    large = Preprocessing((224, 224), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ValueError, match="60000x1 pixels are too narrow"):
        prepared(thin, large)
    assert prepared(np.zeros((1, 1000, 3), np.uint8), large).shape == (3, 224, 224)


def test_other_numbers_of_channels_are_refused(tmp_path):
    four = Preprocessing((8, 8), (0.5,) * 4, (0.5,) * 4)
    with pytest.raises(ConvscopeError, match=r"pictures for 4 channels; expected 1 \(grey\) or 3"):
        Pictures(saved(tmp_path, a=(4, 4)), four, range(1), 1)


def test_the_fingerprint_knows_choice_and_preprocessing(tmp_path):
    listing = saved(tmp_path, a=(4, 4), b=(5, 5), c=(6, 6))
    other = Preprocessing((8, 12), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), "bilinear", 0.9)
    every = [
        Pictures(listing, COLOUR, range(3), 1), Pictures(listing, COLOUR, [0, 1], 1),
        Pictures(listing, COLOUR, [0, 2], 1), Pictures(listing, other, range(3), 1),
    ]  # fmt: skip
    assert len({each.fingerprint() for each in every}) == 4
    assert Pictures(listing, COLOUR, range(3), 7).fingerprint() == every[0].fingerprint()
