"""Folders are listed without opening a file; whatever lies there is named, not fatal."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convscope.core.errors import ConvscopeError
from convscope.data import pictures, read_picture
from convscope.data.tree import FolderListing


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not a picture")


def names(listing):
    return [listing.name(index) for index in range(len(listing))]


def test_pictures_at_any_depth_in_the_order_of_their_paths(tmp_path):
    touch(
        *(
            tmp_path / name
            for name in ("b/2.png", "b/10.PNG", "a/deep/er/x.jpg", "b.jpeg", "a/y.gif", "n.txt")
        )
    )
    touch(tmp_path / ".hidden/h.png", tmp_path / "a/.h.png")
    listing = FolderListing(tmp_path)
    every = sorted(
        (path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".txt"
         and not any(part.startswith(".") for part in path.relative_to(tmp_path).parts)),
        key=lambda path: path.relative_to(tmp_path).parts,
    )  # fmt: skip
    assert names(listing) == [str(path.relative_to(tmp_path)) for path in every]
    assert [listing.label(index) for index in range(len(listing))] == ["a", "a", "b", "b", ""]
    assert listing.ignored == 1
    assert listing.damaged == ()


def test_nothing_is_opened_before_it_is_read(tmp_path, monkeypatch):
    touch(tmp_path / "a.png", tmp_path / "b.png")
    monkeypatch.setattr(pictures.Image, "open", lambda *_, **__: pytest.fail("opened"))
    assert len(FolderListing(tmp_path)) == 2


def test_reading_gives_the_files_pixels(tmp_path):
    pixels = np.random.randint(0, 256, (5, 7, 3), np.uint8)
    touch(tmp_path / "0.png")
    Image.fromarray(pixels).save(tmp_path / "1.png")
    listing = FolderListing(tmp_path)
    assert np.array_equal(listing.read(1), pixels)
    assert np.array_equal(listing.read(1), read_picture(tmp_path / "1.png"))
    with pytest.raises(OSError, match="identify"):
        listing.read(0)
    (tmp_path / "1.png").unlink()
    with pytest.raises(FileNotFoundError):
        listing.read(1)


def test_what_is_called_a_picture_and_is_none(tmp_path):
    touch(tmp_path / "a" / "whole.png", tmp_path / "folder.png" / "inside.jpg")
    (tmp_path / "a" / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a" / "circle.png").symlink_to(tmp_path / "a" / "circle.png")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    listing = FolderListing(tmp_path)
    assert names(listing) == ["a/whole.png", "folder.png/inside.jpg"]
    found = {damage.path: damage.reason for damage in listing.damaged}
    assert set(found) == {"a/dangling.png", "a/circle.png", "a/pipe.png"}
    assert found["a/dangling.png"] == "a link that leads nowhere"
    assert found["a/pipe.png"] == "not a regular file"


def test_links_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path / "store" / "x.png", tmp_path / "set" / "a" / "1.png")
    (tmp_path / "set" / "b").symlink_to(tmp_path / "store")
    (tmp_path / "set" / "a" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "a" / "one.png").symlink_to(tmp_path / "store" / "x.png")
    listing = FolderListing(tmp_path / "set")
    assert names(listing) == ["a/1.png", "a/one.png", "b/x.png"]
    assert [(damage.path, damage.reason) for damage in listing.damaged] == [
        ("a/up", "a link back to a folder above it")
    ]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    touch(tmp_path / "a" / "1.png", tmp_path / "shut" / "2.png")
    real = os.scandir

    def scandir(folder):
        if Path(folder).name == "shut":
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    listing = FolderListing(tmp_path)
    assert names(listing) == ["a/1.png"]
    assert [(damage.path, damage.reason) for damage in listing.damaged] == [
        ("shut", "can't be read (Permission denied)")
    ]
    with pytest.raises(ConvscopeError, match="Permission denied"):
        FolderListing(tmp_path / "shut")


def test_names_of_any_bytes(tmp_path):
    odd = [b"\xff.png", b"new\nline.png", b"<b>&.png", "Füße.png".encode()]
    for name in odd:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:  # noqa: PTH118, PTH123
            file.write(b"x")
    listing = FolderListing(tmp_path)
    assert set(names(listing)) == {r"\xff.png", r"new\nline.png", "<b>&.png", "Füße.png"}
    for index in range(4):
        listing.name(index).encode()
        with pytest.raises(OSError, match="identify"):  # the file is found under its own name
            listing.read(index)


def test_the_fingerprint_knows_names_and_sizes(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "b.png")
    first = FolderListing(tmp_path).fingerprint()
    assert FolderListing(tmp_path).fingerprint() == first
    (tmp_path / "a.png").write_bytes(b"longer than it was")
    changed = FolderListing(tmp_path).fingerprint()
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    assert len({first, changed, FolderListing(tmp_path).fingerprint()}) == 3


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], r"holds no picture \(0 other"), (["a.txt"], r"holds no picture \(1 other"),
        (["000.tar", "001.tar"], r"give '.*/\*\.tar'"),
    ],
)  # fmt: skip
def test_without_a_picture_the_error_says_what_is_there(tmp_path, files, message):
    touch(*(tmp_path / name for name in files))
    with pytest.raises(ConvscopeError, match=message):
        FolderListing(tmp_path)
    with pytest.raises(ConvscopeError, match="can't be read"):
        FolderListing(tmp_path / "nowhere")


def test_pictures_in_formats_that_are_not_read_are_named(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "scan.TIFF", tmp_path / "b/photo.heic", tmp_path / "notes.txt")
    listing = FolderListing(tmp_path)
    assert names(listing) == ["a.png"]
    assert [damage.path for damage in listing.damaged] == ["b/photo.heic", "scan.TIFF"]
    assert all("not a PNG" in damage.reason for damage in listing.damaged)
    assert listing.ignored == 1
