"""Where the images of a command come from: every kind of --data, and what is told about it."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from convscope.cli.images import NormalisationOptions, image_for, source_for
from convscope.cli.main import main
from convscope.core.errors import ConvscopeError
from convscope.networks import Preprocessing
from convscope.networks.load import Belongings, Loaded

KNOWN = Preprocessing((20, 24), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic", 0.8, source="its weights")


def loaded(shape=(1, 3, 20, 24), preprocessing=None):
    net = nn.Sequential(nn.Conv2d(shape[1], 4, 3), nn.ReLU())
    return Loaded(net, shape, Belongings("net.py:net", preprocessing, (), None, {}))


def picture(path, size=(30, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.randint(0, 256, (*size, 3), np.uint8)).save(path)


def opened(file):
    with Image.open(file) as image:
        return image.convert("RGB")


@pytest.fixture
def pictures(tmp_path):
    for number in range(6):
        picture(tmp_path / "set" / ("cat" if number % 2 else "dog") / f"{number}.png")
    (tmp_path / "set" / "cat" / "7.png").write_bytes(b"no picture")
    (tmp_path / "set" / "notes.txt").touch()
    return tmp_path / "set"


def test_a_folder_is_prepared_as_the_network_says(pictures, capsys):
    source = source_for(loaded(preprocessing=KNOWN), str(pictures))
    ((indices, batch),) = source.batches()
    for index, image in zip(indices, batch, strict=True):
        assert torch.equal(image, KNOWN(opened(pictures / source.name(index))))
    assert (len(indices), source.length, source.mean) == (6, 7, KNOWN.mean)
    assert [damage.path for damage in source.damaged] == ["cat/7.png"]
    told = capsys.readouterr().err.splitlines()
    assert told == ["looking at 7 of 7 pictures", "ignored: files that aren't pictures (1)"]


def test_the_size_is_the_inputs_and_stated_constants_count_first(pictures):
    stated = NormalisationOptions("0.5", "0.25")
    source = source_for(loaded((1, 3, 9, 7), KNOWN), str(pictures), stated=stated)
    assert source.sample().shape == (2, 3, 9, 7)
    assert (source.mean, source.std) == ((0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_where_nobody_says_the_images_own_mean_is_taken(pictures, channels):
    default = Preprocessing(
        (30, 40), (0.5,) * channels, (0.5,) * channels, source="convscope's default for it"
    )
    source = source_for(loaded((1, channels, 30, 40), default), str(pictures))
    mode = "L" if channels == 1 else "RGB"
    files = [file for file in pictures.rglob("*.png") if file.name != "7.png"]
    every = (
        np.stack([np.asarray(opened(file).convert(mode), float).reshape(30, 40, -1) for file in files]) / 255
    )
    np.testing.assert_allclose(source.mean, every.mean((0, 1, 2)), atol=1e-9)
    np.testing.assert_allclose(source.std, every.std((0, 1, 2)), atol=1e-9)


def test_validation_images_are_looked_at_where_there_are_some(tmp_path, capsys):
    for split in ("train", "val"):
        picture(tmp_path / split / "a" / f"{split}.png")
    source = source_for(loaded(preprocessing=KNOWN), str(tmp_path))
    assert [source.name(0), source.length] == ["a/val.png", 1]
    assert "looking at the validation images" in capsys.readouterr().err


def test_archives_and_limits(pictures, tmp_path):
    for shard in range(2):
        with tarfile.open(tmp_path / f"s-{shard:02}.tar", "w") as archive:
            archive.add(pictures / ("cat" if shard else "dog"), "")
    source = source_for(loaded(preprocessing=KNOWN), f"{tmp_path}/s-{{00..01}}.tar", limit=3)
    assert [source.name(index) for index in range(3)] == [
        "s-00.tar/0.png",
        "s-00.tar/4.png",
        "s-01.tar/5.png",
    ]


def test_a_built_in_set_has_names_and_can_be_limited():
    source = source_for(loaded((1, 1, 16, 16)), "digits", limit=4)
    assert source.length == 4
    assert source.name(1).endswith(", no. 1")
    assert next(source.batches())[1].shape == (4, 1, 16, 16)


@pytest.mark.parametrize(
    ("shape", "reference", "limit", "message"),
    [
        ((1, 4, 8, 8), "set", None, "takes 4 channels"),
        ((1, 3, 8, 8), "set", 0, "--limit 0"),
        ((1, 3, 8, 8), "phots", None, "did you mean 'photos'"),
        ((1, 3, 8, 8), "sett", None, "did you mean 'set'"),
        ((1, 3, 8, 8), "0.tar.gz", None, "is compressed.*gunzip"),
        ((1, 3, 8, 8), "{0..2}.tar", None, "no tar file '0.tar'"),
        ((1, 3, 8, 8), "set/notes.txt", None, "can't be read"),
        ((1, 3, 8, 8), "empty", None, "holds no picture"),
    ],
)
def test_bad_input_is_one_line(pictures, monkeypatch, shape, reference, limit, message):
    monkeypatch.chdir(pictures.parent)
    (pictures.parent / "empty").mkdir()
    with tarfile.open("0.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
    with pytest.raises(ConvscopeError, match=message) as caught:
        source_for(loaded(shape), reference, limit)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_one_picture_that_cannot_be_read_is_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ConvscopeError, match=r"image '.*a.png': (not a PNG|can't be read)"):
        image_for(loaded(preprocessing=KNOWN), str(tmp_path / "a.png"))


def test_one_picture_too_narrow_to_resize_is_one_line(tmp_path):
    picture(tmp_path / "a.png", (1, 3_000_000))
    with pytest.raises(ConvscopeError, match="too narrow"):
        image_for(loaded(preprocessing=KNOWN), str(tmp_path / "a.png"))


def test_a_gallery_of_damaged_pictures_from_the_command_line(pictures, monkeypatch, capsys):
    monkeypatch.chdir(pictures.parent)
    network = "zfnet --width 0.0625 --num-classes 4 --input 3x67x67"
    main(f"gallery {network} --data set --limit 5 --layers features.conv1 --json".split())
    out, err = capsys.readouterr()
    assert json.loads(out)["num_images"] == 4  # the fourth of five is damaged
    assert "looking at 5 of 7 pictures" in err
    assert "left out: cat/7.png (not a PNG" in err
