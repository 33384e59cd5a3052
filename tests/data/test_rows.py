"""Hugging Face data sets on disk and in memory, to learn from."""

import io
import sys

import pytest
from PIL import Image

from convscope.core.errors import ConvscopeError
from convscope.data import list_pictures, load_data

pytestmark = pytest.mark.filterwarnings(
    "ignore:Cannot (locate|pickle)", "ignore::DeprecationWarning", "ignore::ResourceWarning"
)


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    found = pytest.importorskip("datasets")
    found.disable_progress_bars()
    monkeypatch.setattr(found.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return found


def encoded(value):
    content = io.BytesIO()
    Image.new("RGB", (6, 6), (value, 0, 0)).save(content, "PNG")
    return {"bytes": content.getvalue(), "path": None}


def make(datasets, labels, feature=None, column="label", first=0):
    features = {"image": datasets.Image(), column: feature or datasets.ClassLabel(names=["cat", "dog"])}
    content = {"image": [encoded(first + n) for n in range(len(labels))], column: labels}
    return datasets.Dataset.from_dict(content, features=datasets.Features(features))


def shown(images):
    return [(int(images.picture(i)[0, 0, 0]), images.label(i)) for i in range(len(images))]


@pytest.mark.parametrize("validation", ["validation", "test"])
def test_splits_on_disk_and_in_memory_are_kept(datasets, tmp_path, validation):
    splits = datasets.DatasetDict(
        {"train": make(datasets, [0, 1, 1]), validation: make(datasets, [1, 0], first=50)}
    )
    splits.save_to_disk(tmp_path / "pets")
    for reference in (tmp_path / "pets", f"hf:{tmp_path / 'pets'}", splits):
        data = load_data(reference, size=6)
        assert data.classes == ("cat", "dog")
        assert shown(data.train) == [(0, 0), (1, 1), (2, 1)]
        assert shown(data.validation) == [(50, 1), (51, 0)]
    listing = list_pictures(f"hf:{tmp_path / 'pets'}")
    assert [listing.read(index)[0, 0, 0] for index in range(2)] == [50, 51]
    pair = load_data((splits["train"], splits[validation]), size=6)
    assert shown(pair.validation) == [(50, 1), (51, 0)]


def test_of_one_split_a_fifth_is_set_apart(datasets, tmp_path):
    rows = make(datasets, [0, 1] * 10)
    rows.save_to_disk(tmp_path / "pets")
    data = load_data(tmp_path / "pets", size=6)
    assert (data.class_counts, data.validation.class_counts(2)) == ((8, 8), (2, 2))
    assert all(label == value % 2 for value, label in shown(data.train))
    assert len(list_pictures(tmp_path / "pets")) == 20


def test_a_single_split_is_to_learn_from_whatever_its_name(datasets):
    data = load_data(datasets.DatasetDict({"test": make(datasets, [0, 1] * 5)}), size=6)
    assert data.class_counts == (4, 4)


def test_parquet_files_as_the_hub_stores_them(datasets, tmp_path):
    folder = tmp_path / "repository"
    (folder / "data").mkdir(parents=True)
    make(datasets, [0, 1]).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    make(datasets, [1], first=9).to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    data = load_data(f"hf:{folder}", size=6)
    assert shown(data.train) == [(0, 0), (1, 1)]
    assert shown(data.validation) == [(9, 1)]
    assert data.classes == ("cat", "dog")


def test_texts_and_numbers_are_labels_too(datasets):
    texts = load_data(make(datasets, list("baab") * 5, datasets.Value("string")), size=6)
    assert texts.classes == ("a", "b")
    assert {value % 4: label for value, label in shown(texts.train)} == {0: 1, 1: 0, 2: 0, 3: 1}
    numbers = load_data(make(datasets, [0, 2] * 5, datasets.Value("int64"), "labels"), size=6)
    assert numbers.classes == ("0", "1", "2")
    other = load_data(make(datasets, [0, 1] * 5, column="breed"), size=6)
    assert other.classes == ("cat", "dog")


def test_damaged_and_unlabelled_rows_are_named_and_left_out(datasets):
    rows = make(datasets, [0, 1, None, -1, 0])
    broken = datasets.Dataset.from_dict(
        {"image": [{"bytes": b"no", "path": None}, None], "label": [0, 1]}, features=rows.features
    )
    data = load_data((datasets.concatenate_datasets([rows, broken]), rows), size=6)
    assert [(found.path.split(", ")[-1], found.reason) for found in data.damaged] == [
        ("item 5", "not a PNG, JPEG, WebP, BMP or GIF picture"),
        ("item 6", "ValueError: no picture in this row"),
        ("item 2", "no label"),
        ("item 3", "no label"),
        ("item 2", "no label"),
        ("item 3", "no label"),
    ]
    assert shown(data.train) == [(0, 0), (1, 1), (4, 0)]


def test_what_cannot_be_learnt_from_is_refused_in_one_line(datasets, tmp_path, monkeypatch):
    rows = make(datasets, [0, 1])
    two = rows.add_column("breed", [0, 1]).cast_column("breed", rows.features["label"])
    no_splits = datasets.DatasetDict({"a": rows, "b": rows})
    (tmp_path / "empty").mkdir()
    for given, message in (
        (rows.remove_columns("label"), "columns image; expected a column called label.*rename_column"),
        (two.rename_column("label", "species"), "class labels species, breed.*choose one"),
        (make(datasets, [None, -1]), "without labels"),
        (make(datasets, [0.5, 1.5], datasets.Value("float64")), r"label 0.5 \(float\)"),
        (rows.to_iterable_dataset(), "streams"),
        (no_splits, "the splits a, b; expected one called train or training"),
        (datasets.DatasetDict(), "no split"),
        (f"hf:{tmp_path / 'empty'}", "can't be opened.*check the folder"),
        ("hf:mnist", "no folder 'mnist'.*nothing is downloaded here.*save_to_disk"),
    ):
        with pytest.raises(ConvscopeError, match=message) as raised:
            load_data(given, size=6)
        assert "\n" not in str(raised.value)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConvscopeError, match=r"convscope\[hf\]"):
        load_data(f"hf:{tmp_path}", size=6)
