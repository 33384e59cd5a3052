"""Hugging Face data sets; skipped where ``datasets`` isn't installed."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from convscope.core.errors import ConvscopeError
from convscope.data import list_pictures
from convscope.data.ahead import read_ahead
from convscope.data.hugging_face import is_saved

pytestmark = pytest.mark.filterwarnings("ignore:Cannot (locate|pickle)")  # dill, which hashes for datasets


def encoded(pixels, kind="PNG", **options):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


@pytest.fixture
def datasets():
    found = pytest.importorskip("datasets")
    found.disable_progress_bars()
    return found


@pytest.fixture
def pixels():
    return [np.random.randint(0, 256, (3 + i, 5, 3), np.uint8) for i in range(5)]


@pytest.fixture
def rows(datasets, pixels):
    features = datasets.Features(
        {
            "id": datasets.Value("int64"),
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
        }
    )
    encodings = [{"bytes": encoded(each), "path": None} for each in pixels]
    content = {"id": range(5), "image": encodings, "label": [0, 1, 0, 1, None]}
    return datasets.Dataset.from_dict(content, features=features)


def test_rows_are_pictures_with_classes(rows, pixels):
    listing = list_pictures(rows)
    assert len(listing) == 5
    for index in (3, 0, 4):
        assert np.array_equal(listing.read(index), pixels[index])
        assert np.array_equal(listing.read(index), np.asarray(rows[index]["image"]))
    assert [listing.label(index) for index in range(4)] == ["cat", "dog", "cat", "dog"]
    assert listing.name(3) == "row 3"


def test_chosen_rows_formats_and_transforms_do_not_matter(rows, pixels):
    chosen = rows.select([4, 2])
    chosen.set_transform(lambda batch: {"image": [0]})
    listing = list_pictures(chosen)
    assert np.array_equal(listing.read(0), pixels[4])
    assert np.array_equal(list_pictures(rows.with_format("torch")).read(2), pixels[2])


def test_saved_folders_are_opened(rows, pixels, datasets, tmp_path):
    rows.save_to_disk(tmp_path / "one")
    assert is_saved(tmp_path / "one")
    listing = list_pictures(tmp_path / "one")
    assert np.array_equal(listing.read(1), pixels[1])
    assert listing.fingerprint() == list_pictures(rows).fingerprint()
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "two")
    with pytest.raises(ConvscopeError, match=r"several splits.*two/train' or '.*two/test'"):
        list_pictures(tmp_path / "two")
    assert len(list_pictures(tmp_path / "two" / "test")) == 5
    with pytest.raises(ConvscopeError, match="give 'train' or 'test'"):
        list_pictures(datasets.DatasetDict({"train": rows, "test": rows}))
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"broken")
    with pytest.raises(ConvscopeError, match="can't be opened"):
        list_pictures(tmp_path / "one")


def test_threads_get_their_own_rows(rows, pixels):
    listing = list_pictures(rows)
    order = [index % 5 for index in range(100)]
    found = list(read_ahead(listing.read, order, threads=4, most=20))
    assert all(np.array_equal(each, pixels[index]) for each, index in zip(found, order, strict=True))


def test_damaged_and_empty_rows_are_met_when_they_are_read(rows, datasets):
    broken = [{"bytes": b"no picture", "path": None}, None, {"bytes": None, "path": "/nowhere/a.png"}]
    content = datasets.Dataset.from_dict(
        {"picture": broken}, features=datasets.Features({"picture": datasets.Image()})
    )
    listing = list_pictures(content)
    for index, kind in enumerate([OSError, ValueError, FileNotFoundError]):
        with pytest.raises(kind):
            listing.read(index)
    assert listing.label(0) == ""


def test_arrays_count_if_they_are_bytes(datasets):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    content = datasets.Dataset.from_dict(
        {"x": [grey]}, features=datasets.Features({"x": datasets.Array2D((3, 4), "uint8")})
    )
    assert list_pictures(content).read(0).tolist() == np.stack([grey] * 3, -1).tolist()
    floats = datasets.Dataset.from_dict(
        {"x": [np.zeros((3, 4, 3))]},
        features=datasets.Features({"x": datasets.Array3D((3, 4, 3), "float32")}),
    )
    with pytest.raises(ConvscopeError, match=r"columns x \(Array3D\).*of uint8"):
        list_pictures(floats)
    channels_first = datasets.Dataset.from_dict(
        {"x": [np.zeros((3, 4, 5), np.uint8)]},
        features=datasets.Features({"x": datasets.Array3D((3, 4, 5), "uint8")}),
    )
    with pytest.raises(ValueError, match=r"an array of shape \(3, 4, 5\) instead of"):
        list_pictures(channels_first).read(0)


def test_other_data_sets_are_refused_in_one_line(datasets, rows):
    with pytest.raises(ConvscopeError, match=r"columns a \(Value\)"):
        list_pictures(datasets.Dataset.from_dict({"a": [1]}))
    with pytest.raises(ConvscopeError, match="without streaming"):
        list_pictures(rows.to_iterable_dataset())
    with pytest.raises(ConvscopeError, match="without rows"):
        list_pictures(rows.select([]))


def test_the_fingerprint_knows_rows_again(rows):
    first = list_pictures(rows).fingerprint()
    assert list_pictures(rows.select(range(5))).fingerprint() == first
    assert list_pictures(rows.select([0, 1, 2, 4, 3])).fingerprint() != first
    assert list_pictures(rows.select(range(4))).fingerprint() != first


def test_the_package_is_not_needed_for_other_pictures(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    assert len(list_pictures(tmp_path)) == 1


def test_an_absent_package_is_named(tmp_path, monkeypatch):
    for name in ("state.json", "dataset_info.json"):
        (tmp_path / name).write_text("{}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConvscopeError, match=r"convscope\[hf\]"):
        list_pictures(tmp_path)
