"""Random variations: mirrored, shifted, nothing else."""

import torch

from convscope.data import augmented


def coordinates(n, height, width):
    rows = torch.arange(height)[:, None].expand(height, width)
    columns = torch.arange(width)[None].expand(height, width)
    return torch.stack([rows, columns]).float().expand(n, 2, height, width).clone()


def test_every_image_is_a_shifted_and_perhaps_mirrored_copy():
    images = coordinates(200, 16, 24)
    varied = augmented(images, torch.Generator().manual_seed(0))
    shifts, mirrored = set(), 0
    for image in varied:
        step = int(image[1, 8, 12] - image[1, 8, 11])
        assert abs(step) == 1
        upright = image.flip(2) if step < 0 else image
        mirrored += step < 0
        down, right = int(upright[0, 8, 12]) - 8, int(upright[1, 8, 12]) - 12
        shifts.add((down, right))
        rows = (torch.arange(16) + down).clamp(0, 15).float()
        columns = (torch.arange(24) + right).clamp(0, 23).float()
        assert torch.equal(upright[0], rows[:, None].expand(16, 24))
        assert torch.equal(upright[1], columns[None].expand(16, 24))
    assert {down for down, _ in shifts} == set(range(-2, 3))
    assert {right for _, right in shifts} == set(range(-3, 4))
    assert 60 < mirrored < 140


def test_without_flip_nothing_is_mirrored():
    varied = augmented(coordinates(64, 16, 16), torch.Generator().manual_seed(0), flip=False)
    assert (varied[:, 1, 8, 9] > varied[:, 1, 8, 8]).all()


def test_the_generator_decides_and_the_global_one_is_untouched():
    images = torch.randn(8, 3, 16, 16)
    before, kept = torch.get_rng_state(), images.clone()
    first = augmented(images, torch.Generator().manual_seed(5))
    assert torch.equal(first, augmented(images, torch.Generator().manual_seed(5)))
    assert not torch.equal(first, augmented(images, torch.Generator().manual_seed(6)))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(images, kept)


def test_tiny_images_are_left_where_they_are():
    images = torch.randn(3, 1, 4, 4)
    assert torch.equal(augmented(images, torch.Generator(), flip=False), images)
