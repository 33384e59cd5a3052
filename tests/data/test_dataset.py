"""From a text to images."""

import numpy as np
import pytest
from PIL import Image

from convscope.cli.images import tell_left_out
from convscope.core.errors import ConvscopeError
from convscope.data import load_data, open_folder


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
        (
            "fotos",
            "unknown data set 'fotos'; expected photos, digits, mnist5k, or a folder.*did you mean 'photos'",
        ),
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


def test_training_classes_without_validation_images_are_told(tmp_path, capsys):
    pictures(tmp_path / "train" / "cat", 8)
    pictures(tmp_path / "train" / "dog", 2)
    pictures(tmp_path / "train" / "emu", 2)
    pictures(tmp_path / "val" / "dog", 4)
    (tmp_path / "val" / "emu").mkdir()
    (tmp_path / "val" / "emu" / "bad.png").write_bytes(b"")
    data = load_data(tmp_path, size=8)
    assert data.classes_without_images("validation") == ("cat", "emu")
    assert data.classes_without_images("train") == ()
    assert data.class_counts == (8, 2, 2)
    assert (data.imbalance.largest, data.imbalance.smallest, data.imbalance.ratio) == ("cat", "dog", 4)
    tell_left_out(data)
    said = capsys.readouterr().err
    assert "classes without validation images, so not judged: cat, emu\n" in said
    assert "unequal classes: cat has 4 times as many training images as dog (8 against 2)\n" in said
    assert "bad.png" in said
    assert "without training images" not in said


def test_a_class_of_one_picture_is_told_where_a_fifth_is_set_apart(tmp_path):
    pictures(tmp_path / "cat", 5)
    pictures(tmp_path / "dog", 1)
    data = load_data(tmp_path, size=8)
    assert data.classes_without_images("validation") == ("dog",)
    assert data.class_counts == (4, 1)


def test_one_class_is_loaded_and_says_so(tmp_path):
    pictures(tmp_path / "cat", 5)
    data = load_data(tmp_path, size=8)
    assert data.classes == ("cat",)
    assert data.imbalance is None


def test_splits_with_no_class_in_common_leave_nothing_to_judge_by(tmp_path, capsys):
    pictures(tmp_path / "train" / "cat", 3)
    pictures(tmp_path / "test" / "dog", 3)
    data = load_data(tmp_path, size=8)
    assert len(data.validation) == 0
    assert [found.reason for found in data.damaged] == ["a class without training images"]


def test_pictures_of_every_kind_and_size_in_one_folder(tmp_path):
    folder = tmp_path / "cat"
    folder.mkdir()
    red = np.zeros((9, 14, 3), np.uint8)
    red[:] = (200, 0, 0)
    image = Image.fromarray(red)
    rotated = Image.Exif()
    rotated[0x0112] = 6
    half = np.concatenate([red[:, :7], np.full((9, 7, 3), 255, np.uint8)], axis=1)
    image.save(folder / "a_plain.png")
    image.convert("L").save(folder / "b_grey.png")
    image.convert("CMYK").save(folder / "c_cmyk.jpg", quality=100)
    image.quantize(4).save(folder / "d_palette.png")
    Image.fromarray(np.full((7, 31), 200 << 8, np.uint16)).save(folder / "e_sixteen_bits.png")
    Image.fromarray(half).save(folder / "f_rotated.jpg", exif=rotated, quality=100, subsampling=0)
    Image.new("RGBA", (1, 1), (0, 0, 0, 0)).save(folder / "g_clear.png")
    frames = [Image.new("RGB", (400, 3), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "h_animated.gif", save_all=True, append_images=frames[1:])
    (folder / "i_damaged.png").write_bytes((folder / "a_plain.png").read_bytes()[:44])
    image.save(folder / "j_other.tiff")
    data = load_data(tmp_path, size=(10, 6))
    every = data.split("all").pictures
    names = [file.name[0] for file in open_folder(tmp_path).files]
    order = (*data.train.indices, *data.validation.indices)
    shown = {names[index]: every.read(place) for place, index in enumerate(order)}
    assert "".join(sorted(shown)) == "abcdefgh"
    assert {pixels.shape for pixels in shown.values()} == {(10, 6, 3)}
    middle = {name: pixels[5, 3].tolist() for name, pixels in shown.items()}
    for name, colour in (
        ("a", (200, 0, 0)),
        ("b", (60, 60, 60)),
        ("c", (200, 0, 0)),
        ("d", (200, 0, 0)),
        ("e", (200, 200, 200)),
        ("g", (255, 255, 255)),
        ("h", (255, 0, 0)),
    ):
        assert np.abs(np.subtract(middle[name], colour)).max() <= 3, name
    # Turned clockwise: what was left is on top.
    assert np.abs(shown["f"][1].astype(int) - (200, 0, 0)).max() < 30
    assert shown["f"][8].min() > 225
    reasons = {found.path.rsplit("/", 1)[-1]: found.reason for found in data.damaged}
    assert set(reasons) == {"i_damaged.png", "j_other.tiff"}
    assert reasons["j_other.tiff"] == "not a PNG, JPEG, WebP, BMP or GIF picture"
    assert data.ignored == 0
