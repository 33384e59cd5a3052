"""Splits, batches and their determinism."""

import numpy as np
import pytest
import torch

from convscope.core.errors import ConvscopeError
from convscope.data import ImageData, ImageSet, Normalisation
from convscope.data.images import first_of_each_class


class Numbered:
    """Pictures that show their own number."""

    def __init__(self, count, classes=3):
        self.labels = tuple(index % classes for index in range(count))

    def read(self, index):
        return np.full((16, 8, 1), index, np.uint8)


def data(train=10, validation=4):
    normalisation = Normalisation((0.0,), (1 / 255,))
    pictures = Numbered(train + validation)
    return ImageData(
        "numbers",
        ("a", "b", "c"),
        ImageSet(pictures, range(train), normalisation),
        ImageSet(pictures, range(train, train + validation), normalisation),
        normalisation,
        (16, 8),
    )


def numbers(batches):
    return [images[:, 0, 0, 0].round().int().tolist() for images, _ in batches]


def test_items_are_normalised_images_and_labels():
    image, label = data().train[7]
    assert image.shape == (1, 16, 8)
    assert image.dtype == torch.float32
    assert image[0, 0, 0].item() == pytest.approx(7)
    assert label == 1
    assert data().validation.picture(2)[0, 0, 0] == 12
    assert data().input_shape == (1, 16, 8)


def test_training_batches_are_full_shuffled_and_without_repetition():
    found = numbers(data().batches("train", 4))
    assert [len(batch) for batch in found] == [4, 4]
    shown = [number for batch in found for number in batch]
    assert len(set(shown)) == 8
    assert shown != sorted(shown)
    assert set(shown) <= set(range(10))


def test_fewer_images_than_a_batch_are_one_batch():
    assert [len(batch) for batch in numbers(data(train=3).batches("train", 4))] == [3]


def test_validation_comes_in_order_and_whole():
    assert numbers(data().batches("validation", 3)) == [[10, 11, 12], [13]]


def test_everything_is_training_and_validation():
    images, labels = data().split("all").stacked()
    assert images[:, 0, 0, 0].round().int().tolist() == list(range(14))
    assert labels.tolist() == [index % 3 for index in range(14)]
    assert numbers(data().batches("all", 20)) == [list(range(14))]


@pytest.mark.parametrize("augment", [False, True])
def test_the_same_arguments_give_the_same_batches_whatever_happened_before(augment):
    def epoch(**options):
        return torch.cat([images for images, _ in data().batches("train", 5, augment=augment, **options)])

    first = epoch(seed=1, epoch=3)
    state = torch.get_rng_state()
    torch.randn(5)
    assert torch.equal(epoch(seed=1, epoch=3), first)
    assert not torch.equal(epoch(seed=1, epoch=4), first)
    assert not torch.equal(epoch(seed=2, epoch=3), first)
    torch.set_rng_state(state)
    list(data().batches("train", 5, augment=augment))
    assert torch.equal(torch.get_rng_state(), state)


def test_labels_stay_with_their_images_through_augmentation():
    for images, labels in data().batches("train", 5, augment=True):
        assert (images[:, 0, 0, 0].round().int() % 3).tolist() == labels.tolist()


def test_a_limit_keeps_the_first_of_each_class():
    assert first_of_each_class(Numbered(20), range(1, 12), 2) == [1, 2, 3, 4, 5, 6]


def test_stacked_samples_evenly():
    images, labels = data().train.stacked(limit=5)
    assert images[:, 0, 0, 0].round().int().tolist() == [0, 2, 4, 6, 8]
    assert labels.tolist() == [0, 2, 1, 0, 2]


def test_another_normalisation_reaches_both_splits():
    other = data().normalised_with((0.5,), (0.5,))
    assert other.train[0][0].max() == -1
    assert other.validation[0][0].max().item() == pytest.approx(10 / 255 * 2 - 1)
    assert other.mean == (0.5,)
    with pytest.raises(ConvscopeError, match="1 channels normalised with 3 means"):
        data().normalised_with((0.5,) * 3, (0.5,) * 3)


def test_wrong_splits_and_empty_ones_are_refused():
    with pytest.raises(ConvscopeError, match="train, validation or all"):
        data().split("test")
    for batch_size, split in ((4, "validation"), (0, "train")):
        with pytest.raises(ConvscopeError, match="at least one image"):
            data(validation=0).batches(split, batch_size)
    with pytest.raises(ConvscopeError, match="without images"):
        data(validation=0).validation.stacked()
