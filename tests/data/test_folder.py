"""Folders of pictures: damaged files are named and left out."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convscope.core.errors import ConvscopeError
from convscope.data import open_folder
from convscope.data.folder import FolderPictures


def picture(path, value=100, size=(24, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.randint(0, 50, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise + np.uint8(value)).save(path)
    return path


def test_classes_are_subfolders_in_order_and_depth_does_not_matter(tmp_path):
    picture(tmp_path / "dog" / "b.png")
    picture(tmp_path / "cat" / "deep" / "er" / "z.JPG")
    picture(tmp_path / "cat" / "a.webp")
    folder = open_folder(tmp_path)
    assert folder.classes == ("cat", "dog")
    assert [file.name for file in folder.files] == ["a.webp", "z.JPG", "b.png"]
    assert folder.labels == (0, 0, 1)
    assert folder.damaged == ()
    assert folder.ignored == 0


def test_a_truncated_picture_in_the_middle_is_named_and_skipped(tmp_path):
    for name in "abc":
        picture(tmp_path / "cat" / f"{name}.png")
    data = (tmp_path / "cat" / "b.png").read_bytes()
    (tmp_path / "cat" / "b.png").write_bytes(data[: len(data) // 2])
    folder = open_folder(tmp_path)
    assert [file.name for file in folder.files] == ["a.png", "c.png"]
    assert [Path(found.path).name for found in folder.damaged] == ["b.png"]
    assert "truncated" in folder.damaged[0].reason


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif"])
def test_every_kind_of_damage_is_survived(tmp_path, suffix):
    picture(tmp_path / "cat" / "whole.png")
    data = picture(tmp_path / "cat" / f"p.{suffix}").read_bytes()
    (tmp_path / "cat" / f"p.{suffix}").unlink()
    damages = {
        "empty": b"",
        "text": b"<html>not found</html>",
        "head": data[:20],
        "half": data[: len(data) // 2],
        "noise": data[:8] + np.random.bytes(len(data)),
    }
    for name, content in damages.items():
        (tmp_path / "cat" / f"{name}.{suffix}").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = open_folder(tmp_path)
    names = {Path(found.path).stem for found in folder.damaged}
    assert names == set(damages)
    assert len(folder.files) == 1
    assert all(found.reason and "\n" not in found.reason for found in folder.damaged)


def test_a_bomb_is_refused_by_name(tmp_path, monkeypatch):
    picture(tmp_path / "cat" / "small.png", size=(4, 4))
    picture(tmp_path / "cat" / "bomb.png", size=(40, 40))
    monkeypatch.setattr("convscope.data.pictures.MOST_PIXELS", 100)
    folder = open_folder(tmp_path)
    assert [file.name for file in folder.files] == ["small.png"]
    assert folder.damaged[0].path.endswith("bomb.png")
    assert "bomb" in folder.damaged[0].reason


def test_pillows_own_limit_is_a_reason_too(tmp_path, monkeypatch):
    picture(tmp_path / "cat" / "small.png", size=(4, 4))
    picture(tmp_path / "cat" / "bomb.png", size=(40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "DecompressionBombError" in open_folder(tmp_path).damaged[0].reason


def test_other_files_are_counted_and_hidden_ones_are_not(tmp_path):
    picture(tmp_path / "cat" / "a.png")
    picture(tmp_path / "cat" / "._a.png")
    picture(tmp_path / ".cache" / "b.png")
    (tmp_path / "cat" / "notes.txt").write_text("x")
    (tmp_path / "labels.csv").write_text("x")
    picture(tmp_path / "loose.png")
    folder = open_folder(tmp_path)
    assert len(folder.files) == 1
    assert folder.ignored == 3
    assert folder.classes == ("cat",)


def test_a_folder_without_classes_is_one_unlabelled_class(tmp_path):
    picture(tmp_path / "b.png")
    picture(tmp_path / "a.png")
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "x.pdf").write_text("x")
    folder = open_folder(tmp_path)
    assert folder.classes == ("unlabelled",)
    assert [file.name for file in folder.files] == ["a.png", "b.png"]
    assert folder.labels == (0, 0)
    assert folder.ignored == 1


def test_a_class_without_a_whole_picture_is_named_and_labels_stay_dense(tmp_path):
    picture(tmp_path / "a" / "x.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.png").write_bytes(b"")
    (tmp_path / "c").mkdir()
    picture(tmp_path / "d" / "x.png")
    folder = open_folder(tmp_path)
    assert folder.classes == ("a", "d")
    assert folder.labels == (0, 1)
    named = {str(Path(found.path).relative_to(tmp_path)) for found in folder.damaged}
    assert named == {str(Path("b", "x.png")), "b", "c"}


def test_a_subfolder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    picture(tmp_path / "a" / "x.png")
    picture(tmp_path / "a" / "closed" / "y.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    folder = open_folder(tmp_path)
    assert len(folder.files) == 1
    assert [found.reason for found in folder.damaged] == ["can't be read (Permission denied)"]
    assert folder.damaged[0].path.endswith("closed")


def test_empty_absent_and_unreadable_folders_are_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "file.png").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    for path, message in (
        (tmp_path / "empty", r"holds no whole picture \(0 damaged, 0 other files\)"),
        (tmp_path, r"holds no whole picture \(1 damaged, 0 other files\)"),
        (tmp_path / "absent", "No such file or directory"),
        (tmp_path / "file.png", "Not a directory"),
    ):
        with pytest.raises(ConvscopeError, match=message) as raised:
            open_folder(path)
        assert "\n" not in str(raised.value)


def test_a_picture_that_breaks_after_opening_is_named(tmp_path):
    picture(tmp_path / "cat" / "a.png")
    pictures = FolderPictures(open_folder(tmp_path), (8, 8), 3)
    assert pictures.read(0).shape == (8, 8, 3)
    (tmp_path / "cat" / "a.png").unlink()
    with pytest.raises(ConvscopeError, match=r"a\.png' has become unreadable"):
        pictures.read(0)
