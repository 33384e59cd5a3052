"""Photographs in patches: no pixel in both splits, the same patches for the same seed."""

import socket
import sys

import numpy as np
import pytest

from convscope.core.errors import ConvscopeError
from convscope.data import load_data, photos

pytest.importorskip("skimage")
pytest.importorskip("sklearn")

SIZES = [(64, 64), (96, 96), (128, 128), (64, 128), (128, 80), (32, 32), (227, 227)]


def coloured_by_place(height, width):
    """A picture in which every pixel's colour is its own number."""
    number = np.arange(height * width).reshape(height, width)
    return np.stack([number >> 16, (number >> 8) & 255, number & 255], 2).astype(np.uint8)


# One within what is cut, one upright, one beyond: the others are slow.
@pytest.mark.parametrize(
    "size",
    [
        pytest.param(size, marks=() if size in ((64, 64), (128, 80), (227, 227)) else pytest.mark.slow)
        for size in SIZES
    ],
)
def test_no_pixel_is_in_both_splits(size, monkeypatch):
    # The oracle reads the pixels' own numbers back from the patches, before any resizing.
    shapes = [photo.shape[:2] for photo in photos.photographs()]
    shapes[0] = shapes[0][::-1]
    shapes[3] = (741, 500)  # an upright one: bands lie across it
    numbered = tuple(coloured_by_place(*shape) for shape in shapes)
    monkeypatch.setattr(photos, "photographs", lambda: numbered)
    seen = {split: [np.zeros(shape, bool) for shape in shapes] for split in ("train", "validation")}
    for split, masks in seen.items():
        for box in photos.draw_boxes(split, size, seed=0):
            cut = box.cut().astype(np.int64)
            assert cut.shape == (min(max(size[0], 64), 128), min(max(size[1], 64), 128), 3)
            masks[box.photo].flat[(cut[..., 0] << 16) | (cut[..., 1] << 8) | cut[..., 2]] = True
    for train, validation in zip(seen["train"], seen["validation"], strict=True):
        assert not (train & validation).any()
        assert train.sum() > validation.sum() > 10_000


def test_all_ten_photographs_are_classes_with_equal_numbers():
    data = load_data("photos", size=64)
    assert len(data.classes) == 10
    assert len(data.train) == 2000
    assert len(data.validation) == 500
    for split, each in ((data.train, 200), (data.validation, 50)):
        labels = [split.label(index) for index in range(len(split))]
        assert [labels.count(label) for label in range(10)] == [each] * 10


def test_photographs_are_different_scenes_in_colour():
    found = photos.photographs()
    assert len({photo.tobytes() for photo in found}) == 10
    for photo in found:
        assert photo.dtype == np.uint8
        assert np.ptp(photo.astype(int), axis=2).max() > 60
    assert not any("right" in name for _, name in photos._FILES.values())


def test_a_patch_is_cut_from_its_photograph_unchanged():
    patches = photos.PhotoPatches("train", (64, 96), 3, seed=1)
    for index in (0, 777, 1999):
        box = patches.boxes[index]
        photo = photos.photographs()[box.photo]
        expected = photo[box.top : box.top + 64, box.left : box.left + 96]
        np.testing.assert_array_equal(patches.read(index), expected)
        assert patches.labels[index] == box.photo


def test_the_seed_decides_where_patches_lie():
    boxes = photos.draw_boxes("train", (64, 64), seed=3)
    assert boxes == photos.draw_boxes("train", (64, 64), seed=3)
    assert boxes != photos.draw_boxes("train", (64, 64), seed=4)
    assert len(set(boxes)) > 1900


def test_patches_show_something():
    for split in ("train", "validation"):
        boxes = photos.draw_boxes(split, (64, 64), seed=0)
        assert sum(box.cut().mean(axis=2).std() < 4 for box in boxes) <= len(boxes) // 100


@pytest.mark.parametrize("size", [(16, 16), (227, 227), (40, 300)])
def test_other_sizes_are_resized_from_the_nearest_cut(size):
    data = load_data("photos", size=size, per_class=2)
    assert data.train.picture(0).shape == (*size, 3)
    assert data.train[0][0].shape == (3, *size)


def test_grey_patches():
    data = load_data("photos", size=64, channels=1, per_class=2)
    assert data.train[0][0].shape == (1, 64, 64)


def test_nothing_is_downloaded_and_nothing_imported(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("something reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    photos.photographs.cache_clear()
    assert len(photos.photographs()) == 10


def test_absent_packages_and_files_are_named(monkeypatch):
    photos.photographs.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ConvscopeError, match=r"skimage is not installed.*convscope\[data\]"):
            load_data("photos", size=64)
    monkeypatch.setitem(photos._FILES, "cat", ("skimage", "data/no_such_cat.png"))
    with pytest.raises(ConvscopeError, match=r"skimage lacks data/no_such_cat\.png"):
        load_data("photos", size=64)
    photos.photographs.cache_clear()
