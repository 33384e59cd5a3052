import multiprocessing

import pytest
import torch

import convscope as cs
from convscope.core.errors import ConvscopeError
from convscope.train.config import TrainConfig
from convscope.train.feeding.batches import SeededImages, load_batches
from convscope.train.feeding.feed import Feed
from train.toy import RandomImages, ToyData, same_bits, toy_model

CPU = torch.device("cpu")


class _Fragile(RandomImages):
    """Raises what data sets raise."""

    def __getitem__(self, index):
        if index == 3:
            raise OSError("image file is truncated\n(2 bytes not processed)")
        return super().__getitem__(index)


class _Deadly(RandomImages):
    def __getitem__(self, index):
        import os

        os._exit(3)


def _kept(images, workers=1):
    return [pixels.clone() for pixels, _ in load_batches(images, [[0, 2], [1]], workers, CPU)]


def test_workers_serve_both_splits_and_every_epoch_from_the_same_processes():
    data = ToyData()
    feed = Feed(data, TrainConfig(augment="shift"))
    plain = Feed(data, TrainConfig(augment="shift"))
    started = set()
    for split, epoch in (("train", 0), ("validation", 0), ("train", 1), ("train", 0)):
        here = _kept(plain.images(split, epoch), workers=0)
        there = _kept(feed.images(split, epoch))
        started |= {child.pid for child in multiprocessing.active_children()}
        assert all(torch.equal(*pair) for pair in zip(here, there, strict=True))
    assert len(started) == 1
    del feed
    assert not {child.pid for child in multiprocessing.active_children()} & started


def test_an_iteration_that_was_left_and_one_inside_another_give_the_right_batches():
    feed, plain = Feed(ToyData(), TrainConfig()), Feed(ToyData(), TrainConfig())
    left = load_batches(feed.images("train", 0), [[0], [1], [2], [3], [4]], 1, CPU)
    next(left)
    inside = _kept(feed.images("validation", 0))
    second = next(left)[0].clone()
    left.close()
    after = _kept(feed.images("train", 1))
    assert torch.equal(second, plain.images("train", 0).__getitems__([1])[0])
    assert all(map(torch.equal, inside, _kept(plain.images("validation", 0), workers=0)))
    assert all(map(torch.equal, after, _kept(plain.images("train", 1), workers=0)))


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_data_set_raises_is_one_line_that_names_the_image(workers):
    images = SeededImages(_Fragile(6), "train", 3, 0)
    with pytest.raises(ConvscopeError) as caught:
        list(load_batches(images, [[0], [2, 3]], workers, CPU))
    assert str(caught.value) == (
        "train image 3 can't be read (OSError: image file is truncated); expected an image and its label; "
        "correct the data set"
    )


def test_a_process_that_dies_is_one_line():
    with pytest.raises(ConvscopeError, match=r"a loading process that died .*--num-workers 0"):
        list(load_batches(SeededImages(_Deadly(6), "train", 3, 0), [[0]], 1, CPU))


def test_workers_leave_no_process_behind_and_the_same_weights(tmp_path):
    before = set(multiprocessing.active_children())
    with_workers, alone = toy_model(), toy_model()
    settings = {"epochs": 2, "batch_size": 16, "augment": "shift"}
    cs.train(with_workers, ToyData(), out=tmp_path / "two", num_workers=2, **settings)
    assert set(multiprocessing.active_children()) == before
    cs.train(alone, ToyData(), out=tmp_path / "none", **settings)
    assert same_bits(with_workers, alone)
