import io
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from convscope.core.errors import ConvscopeError
from convscope.data import read_picture
from convscope.data.tar.shards import TarListing


def encoded(pixels, kind="PNG"):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def write_tar(file, members):
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


@pytest.fixture
def shards(tmp_path):
    pictures = {f"{i:03}": np.random.randint(0, 256, (4 + i, 7, 3), np.uint8) for i in range(6)}
    files = []
    for shard in range(2):
        members = []
        for key in list(pictures)[shard::2]:
            members += [(f"{key}.cls", b"odd" if shard else b"even"), (f"{key}.png", encoded(pictures[key]))]
        files.append(write_tar(tmp_path / f"s-{shard}.tar", members))
    return files, [
        (f"s-{s}.tar/{k}.png", pictures[k], "odd" if s else "even")
        for s in range(2)
        for k in list(pictures)[s::2]
    ]


def test_pictures_names_and_classes(shards):
    files, expected = shards
    listing = TarListing(files)
    assert len(listing) == 6
    for index in (5, 0, 3, 1, 4, 2):  # in any order
        name, pixels, label = expected[index]
        assert listing.name(index) == name
        assert listing.label(index) == label
        assert np.array_equal(listing.read(index), pixels)
    assert listing.damaged == ()
    assert listing.ignored == 0


def test_shards_of_one_name_are_told_apart(tmp_path):
    picture = encoded(np.zeros((2, 2, 3), np.uint8))
    files = [write_tar(tmp_path / folder / "0.tar", [("a.png", picture)]) for folder in ("x", "y")]
    listing = TarListing(files)
    assert [listing.name(index) for index in range(2)] == [f"{file}/a.png" for file in files]


def test_a_shard_that_changes_is_not_read_at_the_old_places(shards):
    files, _ = shards
    listing = TarListing(files)
    status = files[0].stat()
    os.utime(files[0], ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    with pytest.raises(OSError, match="has changed since it was listed"):
        listing.read(0)
    assert listing.read(3).shape
    files[1].unlink()
    with pytest.raises(OSError, match="has changed"):
        listing.read(3)


def test_broken_members_and_broken_shards_are_named(tmp_path):
    good = encoded(np.full((3, 3, 3), 9, np.uint8))
    write_tar(tmp_path / "a.tar", [("good.png", good), ("bad.png", b"no"), ("cut.png", good)])
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: 2 * 1024 + 520])
    (tmp_path / "b.tar").write_bytes(b"<html>")
    listing = TarListing([tmp_path / "a.tar", tmp_path / "b.tar"])
    assert [listing.name(index) for index in range(len(listing))] == ["a.tar/good.png", "a.tar/bad.png"]
    assert {damage.path for damage in listing.damaged} == {"a.tar/cut.png", "a.tar", "b.tar"}
    with pytest.raises(OSError, match="identify"):
        listing.read(1)
    with pytest.raises(ConvscopeError, match=r"tar file '.*b.tar': no whole picture .*b\.tar: can't be read"):
        TarListing([tmp_path / "b.tar"])


def test_large_members_are_refused_unread(tmp_path, monkeypatch):
    from convscope.data.tar import shards as module

    file = write_tar(tmp_path / "a.tar", [("a.bmp", encoded(np.zeros((9, 9, 3), np.uint8), "BMP"))])
    listing = TarListing([file])
    monkeypatch.setattr(module, "_LARGEST", 100)
    with pytest.raises(ValueError, match="bytes are more than 100"):
        listing.read(0)


def test_the_fingerprint_knows_shards_again(shards, tmp_path):
    files, _ = shards
    first = TarListing(files).fingerprint()
    assert TarListing(files).fingerprint() == first
    assert TarListing(files[:1]).fingerprint() != first
    assert TarListing(files[::-1]).fingerprint() != first


def test_pixels_are_those_of_the_extracted_files(shards, tmp_path):
    files, _ = shards
    listing = TarListing(files)
    for number, file in enumerate(files):
        with tarfile.open(file) as archive:
            archive.extractall(tmp_path / str(number), filter="data")
    for index in range(len(listing)):
        shard, member = listing.name(index).split("/")
        assert np.array_equal(listing.read(index), read_picture(tmp_path / shard[2] / member))
