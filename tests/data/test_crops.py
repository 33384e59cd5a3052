"""Cuts: every pixel from where loops say it should come."""

import pytest
import torch

from convscope.core.errors import ConvscopeError
from convscope.data import centre_crop, random_crop, random_mirror, ten_crops


def coordinates(n, height, width):
    """Images that show each pixel's image, row and column."""
    grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    numbers = torch.arange(n)[:, None, None, None].expand(n, 1, height, width)
    return torch.cat([numbers, grid.expand(n, 2, height, width)], dim=1).clone()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_random_cuts_are_whole_squares_of_their_own_image_at_every_place():
    images = coordinates(600, 8, 10)
    cuts = random_crop(images, 6, seeded())
    places = set()
    for number, cut in enumerate(cuts):
        _, top, left = cut[:, 0, 0].tolist()
        for row in range(6):
            for column in range(6):
                assert cut[:, row, column].tolist() == [number, top + row, left + column]
        places.add((top, left))
    assert places == {(row, column) for row in range(3) for column in range(5)}


def test_places_are_drawn_uniformly():
    cuts = random_crop(coordinates(4000, 3, 2), 2, seeded())
    share = (cuts[:, 1, 0, 0] == 0).double().mean()
    assert abs(share - 0.5) < 4 * 0.5 / 4000**0.5


def test_chance_comes_from_the_generator_alone():
    images = coordinates(20, 9, 9)
    before = torch.get_rng_state()
    first = random_crop(images, 4, seeded(3))
    torch.randn(3)
    assert torch.equal(random_crop(images, 4, seeded(3)), first)
    assert not torch.equal(random_crop(images, 4, seeded(4)), first)
    assert torch.equal(random_mirror(images, seeded(3)), random_mirror(images, seeded(3)))
    torch.set_rng_state(before)
    random_crop(images, 4, seeded())
    random_mirror(images, seeded())
    assert torch.equal(torch.get_rng_state(), before)


def test_one_image_is_cut_and_mirrored_like_a_batch_of_one():
    image = coordinates(1, 9, 9)[0]
    assert torch.equal(random_crop(image, 4, seeded(5)), random_crop(image[None], 4, seeded(5))[0])
    assert torch.equal(random_mirror(image, seeded(5)), random_mirror(image[None], seeded(5))[0])


def test_half_of_the_images_are_mirrored_and_the_others_untouched():
    images = coordinates(2000, 2, 3)
    mirrored = random_mirror(images, seeded())
    turned = mirrored[:, 2, 0, 0] == 2
    assert torch.equal(mirrored[turned], images[turned].flip(3))
    assert torch.equal(mirrored[~turned], images[~turned])
    assert abs(turned.double().mean() - 0.5) < 4 * 0.5 / 2000**0.5


def test_the_centre_is_in_the_middle():
    assert centre_crop(coordinates(1, 256, 256), 224)[0, 1:, 0, 0].tolist() == [16, 16]
    assert centre_crop(coordinates(1, 5, 8), 2)[0, 1:, 0, 0].tolist() == [1, 3]
    assert centre_crop(torch.zeros(4, 4), 4).shape == (4, 4)


def test_ten_cuts_are_corners_centre_and_their_mirror_images():
    height, width, side = 7, 9, 4
    images = coordinates(2, height, width)
    cuts = ten_crops(images, side)
    assert cuts.shape == (2, 10, 3, side, side)
    tops = [0, 0, 3, 3, 1]
    lefts = [0, 5, 0, 5, 2]
    for number in range(2):
        for place in range(10):
            for row in range(side):
                for column in range(side):
                    across = side - 1 - column if place >= 5 else column
                    expected = [number, tops[place % 5] + row, lefts[place % 5] + across]
                    assert cuts[number, place, :, row, column].tolist() == expected


@pytest.mark.parametrize("side", [0, -1, 9, 11])
def test_cuts_larger_than_the_image_are_refused(side):
    images = torch.zeros(1, 3, 8, 10)
    for cut in (
        lambda: random_crop(images, side, seeded()),
        lambda: centre_crop(images, side),
        lambda: ten_crops(images, side),
    ):
        with pytest.raises(
            ConvscopeError, match=rf"{side}×{side} pixels from images of 8×10.*load them larger"
        ):
            cut()
