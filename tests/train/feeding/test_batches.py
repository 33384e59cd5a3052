import random

import numpy as np
import pytest
import torch

from convscope.core.errors import ConvscopeError
from convscope.train.feeding.batches import SeededImages, load_batches
from train.toy import RandomImages

CPU = torch.device("cpu")


def _load(images, batches, workers=0, **changes):
    seeded = SeededImages(images, **{"split": "train", "num_classes": 3, "seed": 5, "epoch": 2, **changes})
    return list(load_batches(seeded, batches, workers, CPU))


def test_batches_hold_the_asked_images_in_order():
    images = RandomImages(10, noisy=False)
    (first, labels), (second, _) = _load(images, [[3, 1, 9], [0]])
    assert torch.equal(first, images.images[[3, 1, 9]])
    assert labels.tolist() == [images.labels[i] for i in (3, 1, 9)]
    assert labels.dtype == torch.int64
    assert second.shape == (1, 2, 6, 5)


def test_a_samples_noise_depends_on_seed_epoch_and_index_alone():
    images = RandomImages(8)
    alone = {index: _load(images, [[index]])[0][0][0] for index in range(8)}
    (together, _), (rest, _) = _load(images, [[7, 2, 0], [1, 3, 4, 5, 6]])
    for picture, index in zip([*together, *rest], (7, 2, 0, 1, 3, 4, 5, 6)):
        assert torch.equal(picture, alone[index])
    for change in ({"seed": 6}, {"epoch": 3}, {"split": "validation"}):
        assert not torch.equal(_load(images, [[2]], **change)[0][0][0], alone[2])


def test_loading_touches_no_global_generator():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(())
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    _load(RandomImages(8), [[0, 1], [2, 3]])
    assert (random.random(), np.random.rand(), torch.rand(())) == expected


@pytest.mark.slow
def test_workers_give_the_same_batches_and_hand_on_errors():
    images, batches = RandomImages(12), [[0, 5, 7], [2, 3], [1, 11]]
    for (here, _), (there, _) in zip(_load(images, batches), _load(images, batches, workers=2)):
        assert torch.equal(here, there)
    images.labels[3] = 7
    with pytest.raises(
        ConvscopeError, match="train image 3 has the label 7; expected a whole number from 0 to 2"
    ):
        _load(images, batches, workers=2)


def test_augmentation_is_applied_to_each_image_with_a_seed_of_its_own():
    images = RandomImages(6, noisy=False)

    def shifted(image, generator):
        assert image.shape == (1, 2, 6, 5)
        return image + torch.rand((), generator=generator)

    (batch, _), (alone, _) = _load(images, [[4, 1, 2], [2]], augment=shifted)
    shifts = (batch - images.images[[4, 1, 2]]).flatten(1)
    torch.testing.assert_close(shifts, shifts[:, :1].expand_as(shifts))
    assert len(set(shifts[:, 0].tolist())) == 3
    assert torch.equal(batch[2], alone[0])


def test_a_label_is_a_whole_number_of_any_type():
    images = RandomImages(6, noisy=False)
    images.labels[:4] = [torch.tensor(2), np.int64(1), 2.0, np.array(1)]
    ((_, labels),) = _load(images, [[0, 1, 2, 3]])
    assert labels.tolist() == [2, 1, 2, 1]
    for label in (0.5, "1", None, float("nan"), float("inf"), torch.eye(3)[1], torch.tensor(1.5)):
        images.labels[5] = label
        with pytest.raises(
            ConvscopeError, match=r"train image 5 has the label .*; expected a whole number from 0"
        ):
            _load(images, [[5]])


def test_unusable_images_are_named():
    images = RandomImages(6, noisy=False)
    images.labels[4] = -1
    with pytest.raises(ConvscopeError, match="train image 4 has the label -1"):
        _load(images, [[4]])
    mixed = [
        (torch.zeros(3, 8, 8), 0),
        (torch.zeros(3, 8, 9), 1),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), 1),
    ]
    with pytest.raises(ConvscopeError, match=r"image 1 is \(3, 8, 9\) and image 0 is \(3, 8, 8\)"):
        _load(mixed, [[0, 1]])
    with pytest.raises(ConvscopeError, match=r"image 2 is torch.uint8 of shape \(3, 8, 8\)"):
        _load(mixed, [[2]])
    with pytest.raises(ConvscopeError, match=r"image 0 is <class 'numpy\.ndarray'>"):
        _load([(np.zeros((3, 8, 8)), 0)], [[0]])
