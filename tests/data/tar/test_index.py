"""Tar files as they come: complete, broken off, hostile. The oracle is tarfile's own extraction."""

import io
import json
import random
import tarfile

import pytest

from convscope.core.errors import ConvscopeError
from convscope.data.tar.index import index_tar


def write_tar(file, members, **options):
    with tarfile.open(file, "w", **options) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


MEMBERS = [
    ("b/001.jpg", b"one" * 300),
    ("b/001.cls", b"7\n"),
    ("000.cls", b"cat"),
    ("000.seg.png", b"mask"),
    ("readme.txt", b"?"),
    ("000.JPEG", b"zero"),
    ("cat.1.jpg", b"x"),
    ("cat.2.jpg", b"y" * 513),
    ("002.json", json.dumps({"label": 3}).encode()),
    ("002.webp", b""),
    ("._000.jpg", b"mac"),
    ("../../escape.png", b"up"),
    ("/etc/absolute.png", b"root"),
    ("x" * 300 + ".png", b"long name"),
    ("Füße.png", b"unicode"),
]
PICTURES = [
    name
    for name, _ in MEMBERS
    if name.lower().endswith((".jpg", ".jpeg", ".webp", ".png")) and name not in ("000.seg.png", "._000.jpg")
]


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_places_are_those_that_tarfile_extracts(tmp_path, layout):
    members = [m for m in MEMBERS if layout != tarfile.USTAR_FORMAT or len(m[0]) < 100]
    random.Random(3).shuffle(members)
    file = write_tar(tmp_path / "a.tar", members, format=layout)
    index = index_tar(file, "a.tar")
    whole = file.read_bytes()
    found = {m.name: whole[m.offset : m.offset + m.size] for m in index.members}
    with tarfile.open(file) as archive:
        expected = {name: archive.extractfile(name).read() for name, _ in members if name in PICTURES}
    assert found == expected
    assert [m.name for m in index.members] == [name for name, _ in members if name in PICTURES]
    labels = {m.name: m.label for m in index.members if m.label}
    assert labels == {"b/001.jpg": "7", "000.JPEG": "cat", "002.webp": "3"}
    assert index.damaged == []
    assert index.ignored == 2  # the mask and the text
    assert list(tmp_path.iterdir()) == [file]


def test_every_cut_is_named_and_what_lies_before_is_kept(tmp_path):
    """Cut anywhere: each picture that lies wholly before the cut is there, and the cut is told."""
    whole = write_tar(tmp_path / "a.tar", [(f"{i}.png", bytes([i]) * (200 + 300 * i)) for i in range(5)])
    every = index_tar(whole, "a").members
    content = whole.read_bytes()
    end = -(-(every[-1].offset + every[-1].size) // 512) * 512
    for cut in {*range(0, end + 600, 37), 512, 1024, every[2].offset, every[2].offset + every[2].size, end}:
        file = tmp_path / "cut.tar"
        file.write_bytes(content[:cut])
        index = index_tar(file, "cut.tar")
        assert index.members == [m for m in every if m.offset + m.size <= cut]
        assert index.damaged or cut >= end + 512  # an end mark of at least one block


def test_a_broken_header_is_not_taken_for_the_end(tmp_path):
    file = write_tar(tmp_path / "a.tar", [(f"{i}.png", b"x" * 100) for i in range(4)])
    content = bytearray(file.read_bytes())
    content[2 * 1024 + 150] ^= 0xFF  # in the third header's checksum
    file.write_bytes(content)
    index = index_tar(file, "a.tar")
    assert [m.name for m in index.members] == ["0.png", "1.png"]
    assert [damage.reason for damage in index.damaged] == [
        "can't be read beyond 2 pictures (a broken header)"
    ]


def test_members_of_the_folder_itself_are_called_by_their_names(tmp_path):
    index = index_tar(write_tar(tmp_path / "a.tar", [("./0.png", b"x"), ("./0.cls", b"cat")]), "a.tar")
    assert [(m.name, m.label) for m in index.members] == [("0.png", "cat")]


def test_two_archives_in_one_are_told(tmp_path):
    first = write_tar(tmp_path / "a.tar", [("0.png", b"x")]).read_bytes()
    (tmp_path / "b.tar").write_bytes(first * 2)
    index = index_tar(tmp_path / "b.tar", "b.tar")
    assert [m.name for m in index.members] == ["0.png"]
    assert "two files in one" in index.damaged[0].reason


def test_links_and_special_members_are_named(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    index = index_tar(tmp_path / "a.tar", "a.tar")
    assert index.members == []
    assert {damage.path for damage in index.damaged} == {"a.tar/1.png", "a.tar/2.png", "a.tar/6.png"}


@pytest.mark.parametrize(("mode", "command"), [("w:gz", "gunzip"), ("w:bz2", "bunzip2"), ("w:xz", "unxz")])
def test_compressed_archives_are_refused_with_the_remedy(tmp_path, mode, command):
    with tarfile.open(tmp_path / "a.tar", mode) as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(ConvscopeError, match=f"is compressed.*`{command}`"):
        index_tar(tmp_path / "a.tar", "a.tar")


def test_noise_never_escapes(tmp_path):
    """Any bytes give an index or a named reason, never another exception."""
    noise = random.Random(0)
    whole = write_tar(tmp_path / "a.tar", MEMBERS).read_bytes()
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(noise.choice([1, 5, 200])):
            content[noise.randrange(len(content))] = noise.randrange(256)
        (tmp_path / "b.tar").write_bytes(content)
        index_tar(tmp_path / "b.tar", "b.tar")
    for content in (b"", b"x", b"\0" * 511, b"\0" * 5000, b"<html>" * 500, noise.randbytes(3000)):
        (tmp_path / "b.tar").write_bytes(content)
        assert index_tar(tmp_path / "b.tar", "b.tar").members == []


def test_odd_labels_are_no_labels(tmp_path):
    notes = [
        b"[1, 2]",
        b"{",
        b'{"label": null}',
        b'{"cls": 5}',
        b"\xff\xfe",
        b'{"class": {"a": 1}}',
        b"x" * 70_000,
    ]
    members = [(f"{i}.json", note) for i, note in enumerate(notes)]
    index = index_tar(
        write_tar(tmp_path / "a.tar", members + [(f"{i}.png", b"x") for i in range(len(notes))]), "a"
    )
    assert [m.label for m in index.members] == ["", "", "", "5", "", "", ""]


def test_absent_and_unreadable_files_are_named(tmp_path):
    assert "No such file" in index_tar(tmp_path / "none.tar", "none.tar").damaged[0].reason
    assert "directory" in index_tar(tmp_path, "folder").damaged[0].reason.lower()
