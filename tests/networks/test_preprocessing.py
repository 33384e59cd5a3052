"""Preprocessing against torchvision's and timm's own, and class names from files."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from convscope.core.errors import ConvscopeError
from convscope.networks import (
    Preprocessing,
    default_class_names,
    default_preprocessing,
    load,
    read_class_names,
)

HALF = (0.5, 0.5, 0.5)


def picture(width, height):
    return Image.fromarray(np.random.randint(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("width_height", [(320, 257), (257, 320), (224, 224), (100, 60), (1000, 301)])
@pytest.mark.parametrize("name", ["alexnet", "inception_v3"])
def test_equals_torchvisions_transforms(name, width_height):
    models = pytest.importorskip("torchvision").models
    theirs = models.get_model_weights(name).DEFAULT.transforms()
    image = picture(*width_height)
    ours = load(f"torchvision:{name}").preprocessing
    torch.testing.assert_close(ours(image), theirs(image), rtol=0, atol=2e-6)


@pytest.mark.parametrize("width_height", [(320, 257), (257, 320), (90, 61)])
@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
def test_equals_timms_transforms(name, width_height):
    timm = pytest.importorskip("timm")
    loaded = load(f"timm:{name}")
    theirs = timm.data.create_transform(
        **timm.data.resolve_model_data_config(loaded.model), is_training=False
    )
    image = picture(*width_height)
    torch.testing.assert_close(loaded.preprocessing(image), theirs(image), rtol=0, atol=2e-6)


def test_size_may_be_oblong_and_the_picture_too():
    for size in ((32, 48), (48, 32), (7, 100)):
        assert Preprocessing(size, HALF, HALF)(picture(61, 45)).shape == (3, *size)


def test_grey_networks_get_one_channel():
    prepared = Preprocessing((8, 8), (0.25,), (0.5,))(Image.new("L", (10, 10), 255))
    assert prepared.shape == (1, 8, 8)
    assert prepared.unique().tolist() == [1.5]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_any_mode_becomes_rgb(mode):
    assert Preprocessing((8, 8), HALF, HALF)(picture(12, 9).convert(mode)).shape == (3, 8, 8)


def test_inverse_gives_the_picture_back():
    prepare = Preprocessing((16, 16), (0.1, 0.5, 0.9), (0.2, 0.3, 0.4), crop_pct=1.0)
    image = picture(16, 16)
    back = prepare.inverse(prepare(image)[None])[0]
    np.testing.assert_allclose(back.permute(1, 2, 0) * 255, np.asarray(image), atol=1e-3)


def test_defaults_say_that_they_are_defaults():
    assert "default" in default_preprocessing((3, 8, 9), "mine").source
    assert default_preprocessing((3, 8, 9), "mine").size == (8, 9)
    assert default_preprocessing((1, 8, 9), "mine").mean == (0.5,)
    assert default_preprocessing((5,), "mine") is None
    assert default_class_names(2) == ("class 0", "class 1")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("names.txt", "cat\n\n dog \nemu\n"),
        ("names.json", json.dumps(["cat", "dog", "emu"])),
        ("names.json", json.dumps({"2": "emu", "0": "cat", "1": "dog"})),
        ("names.json", json.dumps({"0": ["n1", "cat"], "1": ["n2", "dog"], "2": ["n3", "emu"]})),
    ],
)
def test_class_names_are_read_from_lines_and_json(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert read_class_names(tmp_path / name) == ("cat", "dog", "emu")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b""),
        ("a.txt", b"\xff\xfe\x00"),
        ("a.json", b"{"),
        ("a.json", b"3"),
        ("a.json", b'{"5": "cat"}'),
        ("a.json", b"[[]]"),
    ],
)
def test_broken_class_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConvscopeError, match=name):
        read_class_names(tmp_path / name)


def test_an_absent_class_file_is_named(tmp_path):
    with pytest.raises(ConvscopeError, match="absent"):
        read_class_names(tmp_path / "absent.txt")
