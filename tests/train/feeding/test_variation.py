import pickle

import numpy as np
import pytest
import torch

from convscope.core.errors import ConvscopeError
from convscope.data import load_data
from convscope.data.crops import ten_crops
from convscope.train.config import TrainConfig
from convscope.train.feeding.batches import load_batches
from convscope.train.feeding.feed import Feed
from convscope.train.feeding.variation import Variation, window
from train.toy import RandomImages, ToyData

CPU = torch.device("cpu")


def _numbered(height=7, width=9):
    """An image whose pixels say where they are: channel 0 the row, channel 1 the column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns]).float()[None]


def _drawn(augment, count=400, mirrors=True, **more):
    vary = Variation(augment, 4, mirrors, **more)
    cuts = [vary(_numbered(), torch.Generator().manual_seed(seed))[0] for seed in range(count)]
    assert {tuple(cut.shape) for cut in cuts} == {(2, 4, 4)}
    # Row of the top, column of the left, and whether columns run backwards.
    return [(int(c[0].min()), int(c[1].min()), bool(c[1, 0, 0] > c[1, 0, 3])) for c in cuts]


def test_random_windows_reach_every_place_and_both_directions():
    places = _drawn("crop")
    assert {row for row, _, _ in places} == set(range(4))
    assert {column for _, column, _ in places} == set(range(6))
    assert 0.4 < np.mean([mirrored for _, _, mirrored in places]) < 0.6
    assert not any(mirrored for _, _, mirrored in _drawn("crop", 50, mirrors=False))


def test_one_of_ten_is_each_of_the_ten_and_nothing_else():
    corners = [(0, 0), (0, 5), (3, 0), (3, 5), (1, 2)]
    assert set(_drawn("ten-crops")) == {(*place, mirrored) for place in corners for mirrored in (False, True)}
    assert set(_drawn("ten-crops", mirrors=False)) == {(*place, False) for place in corners}


def test_a_window_alone_equals_its_place_among_the_ten():
    images = torch.randn(2, 3, 7, 8)
    ten = ten_crops(images, 4)
    for number in range(10):
        assert torch.equal(window(images, 4, number), ten[:, number])


def test_without_a_random_window_the_middle_one_is_seen():
    generator = torch.Generator()
    assert torch.equal(Variation("none", 3)(_numbered(), generator), _numbered()[..., 2:5, 3:6])
    shifted = Variation("shift", 4)(_numbered(16, 16), generator)
    assert shifted.shape == (1, 2, 4, 4)


@pytest.mark.parametrize("augment", ["none", "shift", "crop", "crop-colour", "ten-crops"])
def test_every_variation_depends_on_seed_epoch_and_index_alone(augment):
    data = load_data("photos", size=40, per_class=4)
    config = TrainConfig(augment=augment, crop=32, seed=3)
    alone = {i: Feed(data, config).images("train", 2).__getitems__([i])[0][0] for i in (0, 3, 5)}
    ((together, _),) = load_batches(Feed(data, config).images("train", 2), [[5, 0, 3]], 0, CPU)
    for picture, index in zip(together, (5, 0, 3)):
        assert torch.equal(picture, alone[index])
    assert together.shape == (3, 3, 32, 32)
    other_epoch = Feed(data, config).images("train", 3).__getitems__([0, 3, 5])[0]
    other_seed = Feed(data, TrainConfig(augment=augment, crop=32, seed=4)).images("train", 2)
    is_random = augment != "none"
    assert torch.equal(other_epoch, torch.stack(list(alone.values()))) is not is_random
    assert (
        torch.equal(other_seed.__getitems__([0, 3, 5])[0], torch.stack(list(alone.values()))) is not is_random
    )


def test_colour_noise_adds_one_colour_to_each_window_and_needs_pixels():
    data = load_data("photos", size=40, per_class=4)
    with_noise = Feed(data, TrainConfig(augment="crop-colour", crop=32)).images("train", 1)
    without = Feed(data, TrainConfig(augment="crop", crop=32)).images("train", 1)
    added = with_noise.__getitems__([0, 1, 2])[0] - without.__getitems__([0, 1, 2])[0]
    colours = added.mean((2, 3), keepdim=True)
    torch.testing.assert_close(added, colours.expand_as(added), atol=1e-5, rtol=0)
    assert colours.abs().max() > 0.001
    assert not torch.allclose(colours[0], colours[1])
    with pytest.raises(
        ConvscopeError, match="augment='crop-colour' for a RandomImages; expected images whose"
    ):
        Feed(ToyData(), TrainConfig(augment="crop-colour", crop=4)).images("train")


def test_validation_sees_the_middle_window_or_everything():
    data = ToyData(validation=RandomImages(4, noisy=False))
    whole = data.validation.images

    def seen(**settings):
        return Feed(data, TrainConfig(**settings)).images("validation").__getitems__([2, 0])[0]

    assert torch.equal(seen(augment="crop", crop=4), whole[[2, 0]][:, :, 1:5, 0:4])
    assert torch.equal(seen(crop=4), whole[[2, 0]][:, :, 1:5, 0:4])
    assert torch.equal(seen(crop=4, evaluation="ten-crop"), whole[[2, 0]])
    assert torch.equal(seen(augment="shift"), whole[[2, 0]])


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("augment", ["none", "crop", "ten-crops"])
def test_images_smaller_than_their_window_are_one_line(split, augment):
    images = Feed(ToyData(), TrainConfig(augment=augment, crop=6)).images(split)
    with pytest.raises(ConvscopeError) as caught:
        list(load_batches(images, [[1]], 0, CPU))
    assert str(caught.value) == (
        f"{split} image 1 of 6×5 pixels with crop=6; expected images of at least 6×6; "
        "load them larger, such as 256 for crop=224, or make crop smaller"
    )


def test_variations_travel_to_other_processes():
    vary = Variation("crop", 4)
    again = pickle.loads(pickle.dumps(vary))
    drawn = [each(_numbered(), torch.Generator().manual_seed(1)) for each in (vary, again)]
    assert torch.equal(*drawn)
