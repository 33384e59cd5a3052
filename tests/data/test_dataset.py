"""From a text to images."""

import numpy as np
import pytest
from PIL import Image

from convscope.core.errors import ConvscopeError
from convscope.data import load_data


def pictures(folder, count, value=100):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.full((20, 30, 3), value + number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def test_a_folder_is_split_by_class_and_seed(tmp_path):
    pictures(tmp_path / "cat", 10)
    pictures(tmp_path / "dog", 5, value=10)
    (tmp_path / "cat" / "bad.jpg").write_bytes(b"")
    (tmp_path / "cat" / "read.me").write_text("x")
    data = load_data(tmp_path, size=(8, 12))
    assert data.classes == ("cat", "dog")
    assert data.input_shape == (3, 8, 12)
    labels = [data.validation.label(index) for index in range(len(data.validation))]
    assert labels == [0, 0, 1]
    assert not set(data.train.indices) & set(data.validation.indices)
    assert len(data.train) == 12
    assert [found.path for found in data.damaged] == [str(tmp_path / "cat" / "bad.jpg")]
    assert data.ignored == 1
    assert load_data(tmp_path, size=8).validation.indices == data.validation.indices
    assert any(
        load_data(tmp_path, size=8, seed=s).validation.indices != data.validation.indices for s in (1, 2, 3)
    )


def test_the_mean_is_the_training_images_own(tmp_path):
    pictures(tmp_path / "cat", 10)
    data = load_data(tmp_path, size=8)
    shown = np.stack([data.train.picture(index) for index in range(len(data.train))])
    np.testing.assert_allclose(data.mean, shown.mean((0, 1, 2)) / 255, rtol=1e-12)
    images, _ = data.train.stacked()
    assert images.mean().abs() < 1e-4


@pytest.mark.parametrize("name", ["validation", "val", "valid", "test"])
def test_splits_that_the_user_made_are_kept(tmp_path, name):
    pictures(tmp_path / "train" / "cat", 3)
    pictures(tmp_path / "train" / "dog", 2)
    pictures(tmp_path / name / "dog", 4)
    pictures(tmp_path / name / "emu", 1)
    data = load_data(tmp_path, size=8)
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.validation)) == (5, 4)
    assert {data.validation.label(index) for index in range(4)} == {1}
    assert [found.path for found in data.damaged] == [str(tmp_path / name / "emu")]


def test_a_single_picture_is_for_training(tmp_path):
    pictures(tmp_path, 1)
    data = load_data(tmp_path, size=8)
    assert data.classes == ("unlabelled",)
    assert (len(data.train), len(data.validation)) == (1, 0)
    assert len(data.split("all")) == 1


def test_per_class_limits_both_splits():
    pytest.importorskip("sklearn")
    data = load_data("digits", size=8, per_class=3)
    assert (len(data.train), len(data.validation)) == (30, 30)
    shown = np.stack([data.train.picture(index) for index in range(30)])
    np.testing.assert_allclose(data.mean, shown.mean((0, 1, 2)) / 255, rtol=1e-12)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("fotos", "unknown data set 'fotos'; expected photos, digits, or a folder.*did you mean 'photos'"),
        ("digit", "did you mean 'digits'"),
        ("/no/such/folder", "check the path given with --data"),
        ("shards/{00..09}.tar", "tar files can be looked at but not learnt from; unpack them"),
    ],
)
def test_unknown_names_are_answered_with_near_ones(reference, message):
    with pytest.raises(ConvscopeError, match=message):
        load_data(reference, size=8)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ConvscopeError, match="holds no whole picture"):
        load_data(tmp_path, size=8)


@pytest.mark.parametrize(
    "options", [{"size": 0}, {"size": (4, -1)}, {"channels": 2}, {"seed": -1}, {"per_class": 0}]
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ConvscopeError, match="correct the option"):
        load_data("digits", **{"size": 8, **options})
