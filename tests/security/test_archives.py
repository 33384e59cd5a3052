"""Data sets that mean harm: names that lead outside, sizes that aren't there, bombs, circles of links.

Nothing is ever unpacked, so that nothing can be written outside; it is told in one line what was left out.
Elsewhere: names with ``..`` and absolute names, links and special members, any noise (tests/data/tar/
test_index.py); large members (tests/data/tar/test_shards.py); bombs by the number of pixels (tests/data/
test_folder.py, test_pictures.py, tests/sight/test_images.py); circles of links (tests/data/test_tree.py).
"""

import io
import struct
import tarfile
import zlib
from functools import cache

import pytest
from PIL import Image

from cli.typed import run
from convscope.data.tar.index import index_tar

PETABYTE = 10**15
SMALL = "--width 0.0625 --input 3x67x67 --norm batch"


def header(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def block(content):
    return content.ljust(-(-len(content) // 512) * 512, b"\0")


LIES = {
    "picture": header("a.png", PETABYTE),
    "class": header("a.cls", PETABYTE),
    "long name": header("././@LongLink", PETABYTE, tarfile.GNUTYPE_LONGNAME),
    "long link": header("././@LongLink", PETABYTE, tarfile.GNUTYPE_LONGLINK),
    "extended": header("x", PETABYTE, tarfile.XHDTYPE),
    "global": header("x", PETABYTE, tarfile.XGLTYPE),
    "sparse": header("a.png", PETABYTE, tarfile.GNUTYPE_SPARSE),
    "negative": header("a.png", -5),
    "names without end": (header("././@LongLink", 4, tarfile.GNUTYPE_LONGNAME) + block(b"abc\0")) * 3000,
    "headers without end": (header("x", 4, tarfile.XHDTYPE) + block(b"abc\0")) * 3000,
}
GOOD = header("0.png", 3) + block(b"abc")


@pytest.mark.parametrize("lie", LIES)
def test_sizes_that_are_not_there_are_named_and_what_came_before_is_kept(tmp_path, lie):
    (tmp_path / "a.tar").write_bytes(GOOD + LIES[lie] + b"\0" * 1024)
    index = index_tar(tmp_path / "a.tar", "a.tar")
    assert [member.name for member in index.members] == ["0.png"]
    assert index.damaged
    assert all(damage.reason and "\n" not in damage.reason for damage in index.damaged)


def test_a_label_nested_without_end_is_none(tmp_path):
    deep = b"[" * 60_000
    content = header("a.json", len(deep)) + block(deep) + header("a.png", 1) + block(b"x")
    (tmp_path / "a.tar").write_bytes(content + b"\0" * 1024)
    assert [(m.name, m.label) for m in index_tar(tmp_path / "a.tar", "a.tar").members] == [("a.png", "")]


@cache
def picture():
    buffer = io.BytesIO()
    Image.effect_noise((67, 67), 60).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def bomb():
    """A PNG of 60,000 × 60,000 pixels in some dozen bytes."""
    content = bytearray(picture())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder beside the one that is worked in, which nothing may touch."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept.txt").write_text("kept")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "outside"


def test_a_hostile_archive_is_read_where_it_is(outside, capsys):
    work = outside.parent / "work"
    (work / "shards").mkdir()
    with tarfile.open(work / "shards" / "0.tar", "w") as archive:
        names = (
            "../outside/kept.txt.png",
            f"{outside}/planted.png",
            "a/b/../../../outside/x.png",
            "good.png",
        )
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(picture())
            archive.addfile(info, io.BytesIO(picture()))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside / "kept.txt")
        archive.addfile(link)
        info = tarfile.TarInfo("bomb.png")
        info.size = len(bomb())
        archive.addfile(info, io.BytesIO(bomb()))
    code, out, err = run(capsys, f"stem zfnet {SMALL} --data shards/0.tar")
    assert (code, "Traceback" in err) == (0, False), err
    assert out
    assert [path.name for path in outside.iterdir()] == ["kept.txt"]
    assert {path.name for path in outside.parent.iterdir()} == {"outside", "work"}
    assert [path.name for path in work.iterdir()] == ["shards"]


def test_a_folder_of_circles_and_bombs_is_one_line(outside, capsys):
    pictures = outside.parent / "work" / "pictures"
    (pictures / "a").mkdir(parents=True)
    (pictures / "a" / "around").symlink_to(pictures)
    (pictures / "b").symlink_to(pictures / "b")
    (pictures / "a" / "bomb.png").write_bytes(bomb())
    code, out, err = run(capsys, f"stem zfnet {SMALL} --data pictures")
    assert (code, out) == (2, "")
    assert "bomb" in err
    assert err.count("\n") == 1
