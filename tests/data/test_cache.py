"""Decoded pictures in shared memory: the same pixels, read once by all processes together."""

import copy
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from convscope.core.errors import ConvscopeError
from convscope.data import Cached, forecast_cache, load_data
from convscope.data import cache as module

SHAPE = (5, 4, 3)


class Counting:
    """Pictures of their own number, which count how often each is read, in all processes."""

    def __init__(self, count, seconds=0.0):
        self.labels = tuple(index % 2 for index in range(count))
        self.reads = torch.zeros(count, dtype=torch.int64).share_memory_()
        self.seconds = seconds

    def read(self, index):
        self.reads[index] += 1
        time.sleep(self.seconds)
        return np.full(SHAPE, index, np.uint8) + np.arange(3, dtype=np.uint8)


def folder(tmp_path, count=6):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(count):
            pixels = np.random.randint(0, 256, (40, 50, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.jpg")
    return tmp_path


def test_a_picture_is_read_once_and_stays_the_same():
    source = Counting(10)
    cached = Cached(source, SHAPE)
    for _ in range(3):
        for index in (7, 0, 9):
            assert np.array_equal(cached.read(index), Counting(10).read(index))
    assert source.reads.tolist() == [1, 0, 0, 0, 0, 0, 0, 1, 0, 1]
    assert cached.labels == source.labels
    assert (cached.num_filled, cached.num_bytes, len(cached)) == (3, 10 * 60, 10)


def test_what_is_handed_out_is_a_copy():
    cached = Cached(Counting(3), SHAPE)
    for _ in range(2):
        cached.read(1)[:] = 99
    assert np.array_equal(cached.read(1), Counting(3).read(1))


def test_only_chosen_pictures_are_kept():
    source = Counting(10)
    cached = Cached(source, SHAPE, [8, 3, 3])
    assert cached.num_bytes == 2 * 60
    for _ in range(2):
        for index in range(10):
            assert np.array_equal(cached.read(index), Counting(10).read(index))
    assert source.reads.tolist() == [2, 2, 2, 1, 2, 2, 2, 2, 1, 2]


class _Items:
    def __init__(self, pictures):
        self.pictures = pictures

    def __len__(self):
        return len(self.pictures.labels)

    def __getitem__(self, index):
        return torch.from_numpy(self.pictures.read(index))


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_fill_one_memory_for_all(start):
    source = Counting(12)
    cached = Cached(source, SHAPE)
    for _ in range(2):  # new workers each time, as each epoch has
        loader = DataLoader(_Items(cached), 3, num_workers=2, multiprocessing_context=start)
        shown = torch.cat(list(loader))
        assert shown[:, 0, 0, 0].tolist() == list(range(12))
    assert cached.num_filled == 12
    assert source.reads.tolist() == [1] * 12
    cached.read(5)
    assert source.reads[5] == 1


def test_many_that_fill_at_once_agree():
    cached = Cached(Counting(20, seconds=0.0005), SHAPE)
    wrong = []

    def work(seed):
        for index in np.random.default_rng(seed).permutation(20).tolist():
            same = np.array_equal(cached.read(index), Counting(20).read(index))
            wrong.extend([] if same else [index])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cached.num_filled == 20


def test_a_reader_that_fails_leaves_the_place_empty():
    source = Counting(3)
    cached = Cached(source, SHAPE)
    read, source.read = source.read, lambda index: 1 / 0
    with pytest.raises(ZeroDivisionError):
        cached.read(1)
    assert cached.num_filled == 0
    source.read = read
    assert np.array_equal(cached.read(1), read(1))


def test_bytes_come_before_the_flag():
    cached = Cached(Counting(1), SHAPE)
    seen = []

    class Flags:
        def __getitem__(self, slot):
            return False

        def __setitem__(self, slot, value):
            seen.append(cached._pixels[slot].numpy().copy())

    cached._filled = Flags()
    cached.read(0)
    assert np.array_equal(seen[0], Counting(1).read(0))


def test_other_shapes_are_refused():
    with pytest.raises(ConvscopeError, match="one size"):
        Cached(Counting(3), (5, 4, 1)).read(0)


def test_data_are_the_same_with_a_cache(tmp_path):
    data = load_data(folder(tmp_path), size=32)
    kept = data.cached(True)
    for _ in range(2):
        for split in ("train", "validation"):
            for ours, theirs in zip(getattr(data, split), getattr(kept, split), strict=True):
                assert torch.equal(ours[0], theirs[0])
                assert ours[1] == theirs[1]
    assert kept.train.pictures is kept.validation.pictures
    assert kept.train.pictures.num_filled == 12
    assert kept.train.indices == data.train.indices
    assert kept.normalised_with((0.5,) * 3, (0.5,) * 3).train.pictures is kept.train.pictures
    assert len(kept.split("all").stacked()[0]) == 12
    assert data.cached(False) is data
    with pytest.raises(ConvscopeError, match="True, False or 'auto'"):
        data.cached("yes")


def test_two_folders_have_a_cache_each(tmp_path):
    for split in ("train", "validation"):
        (tmp_path / split).mkdir()
        folder(tmp_path / split, 2)
    kept = load_data(tmp_path, size=32).cached(True)
    list(kept.train)
    assert (kept.train.pictures.num_filled, kept.validation.pictures.num_filled) == (4, 0)


def test_auto_keeps_what_fits_and_costs(monkeypatch):
    slow = forecast_cache(Counting(100, seconds=0.002), range(100))
    assert slow.needed_bytes == 100 * 60
    assert slow.read_seconds >= 0.002
    assert slow.pays
    quick = copy.copy(Counting(100))
    quick.read = lambda index: np.zeros(SHAPE, np.uint8)
    assert not forecast_cache(quick, range(100)).pays
    for name, left in (("available_memory", 4 * 6000 - 4), ("shared_memory_left", 2 * 5999)):
        with monkeypatch.context() as changed:
            changed.setattr(module, name, lambda left=left: left)
            forecast = forecast_cache(Counting(100, seconds=0.002), range(100))
            assert forecast.allowed_bytes == 5999
            assert not forecast.fits
            assert not forecast.pays
    monkeypatch.setattr(module, "available_memory", lambda: None)
    assert not forecast_cache(Counting(100, seconds=0.002), range(100)).pays


class Restless(Counting):
    """Pictures that are another each time."""

    def read(self, index):
        return super().read(index) + np.uint8(np.random.randint(100))


def test_pictures_that_vary_by_themselves_are_not_kept(tmp_path):
    before = np.random.get_state()[1].copy()
    forecast = forecast_cache(Restless(20, seconds=0.002), range(20))
    assert np.array_equal(np.random.get_state()[1], before)
    assert not forecast.steady
    assert not forecast.pays
    data = load_data(folder(tmp_path), size=32)
    data.train.pictures.read = lambda index: np.random.randint(0, 256, (32, 32, 3), np.uint8)
    assert data.cached() is data
    with pytest.raises(ConvscopeError, match="differ each time they are read"):
        data.cached(True)


def test_auto_decides_for_data(tmp_path, monkeypatch):
    data = load_data(folder(tmp_path), size=32)
    assert isinstance(data.cached().train.pictures, Cached)
    monkeypatch.setattr(module, "available_memory", lambda: 100)
    assert data.cached() is data


def test_too_little_shared_memory_is_said_before_anything_is_written(monkeypatch):
    monkeypatch.setattr(module, "shared_memory_left", lambda: 100)
    with pytest.raises(ConvscopeError, match=r"600 bytes with 100 of shared memory left.*shm-size"):
        Cached(Counting(10), SHAPE)
