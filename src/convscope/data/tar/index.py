"""Where each picture of a tar file lies: read from the headers once, without unpacking anything.

A picture's key is its name up to the first full stop of the file's own name, as webdataset has it; ``.cls``
and ``.json`` members of the same key say its class. Of ``a.jpg`` and ``a.seg.png`` only the first counts;
where no member has the plain ending, as in ``cat.1.jpg``, all pictures do.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from convscope.core.errors import ConvscopeError
from convscope.data.damage import Damage
from convscope.data.pictures import SUFFIXES

_COMPRESSED = {
    b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"
}  # fmt: skip
_CLASS_KEYS = ("cls", "class", "label", "class_name")
_LONGEST_NOTE = 65_536
_BLOCK = 512
_STEP = 1 << 20


@dataclass(frozen=True)
class Member:
    """A picture in a tar file.

    Attributes:
        name: the member's; nothing is ever written under it.
        offset: of its first byte.
        size: in bytes.
        label: its class; empty where no member says.
    """

    name: str
    offset: int
    size: int
    label: str = ""


@dataclass
class Index:
    """What a tar file holds.

    Attributes:
        members: its pictures, in their order there.
        damaged: members that can't be read, and where the file breaks off.
        ignored: number of members that are neither pictures nor say a class.
    """

    members: list[Member] = field(default_factory=list)
    damaged: list[Damage] = field(default_factory=list)
    ignored: int = 0


def index_tar(file: Path, name: str) -> Index:
    """Return where the pictures of a tar file lie.

    Args:
        file: an uncompressed tar file; of a broken one, what lies before the break.
        name: what it is called in :attr:`Index.damaged`.

    Raises:
        ConvscopeError: the file is compressed.
    """
    index = Index()
    try:
        with file.open("rb") as opened:
            _check_plain(opened, file)
            _fill(index, opened, name)
    except (OSError, tarfile.TarError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        index.damaged.append(Damage(name, f"can't be read beyond {len(index.members)} pictures ({what})"))
    except (MemoryError, OverflowError, RecursionError):
        what = "a name of absurd length, or names without end"
        index.damaged.append(Damage(name, f"can't be read beyond {len(index.members)} pictures ({what})"))
    return index


def _check_plain(opened: IO[bytes], file: Path) -> None:
    start = opened.read(6)
    opened.seek(0)
    for magic, command in _COMPRESSED.items():
        if start.startswith(magic):
            raise ConvscopeError(
                f"tar file {str(file)!r} is compressed",
                "an uncompressed one, of which single pictures can be read (they are compressed themselves)",
                f"unpack it once with `{command}`",
            )


def _fill(index: Index, opened: IO[bytes], name: str) -> None:
    """Sort the members into pictures, classes and others."""
    length = opened.seek(0, 2)
    opened.seek(0)
    pictures: list[tuple[str, bool, Member]] = []
    labels: dict[str, str] = {}
    try:
        for info in _headers(opened):
            title = info.name.removeprefix("./")  # which `tar -C folder .` writes
            path = PurePosixPath(title)
            if info.isdir() or path.name.startswith("."):
                continue
            key, ending = _key(path)
            is_picture = path.suffix.lower() in SUFFIXES
            if is_picture and (problem := _problem(info, length)):
                index.damaged.append(Damage(f"{name}/{title}", problem))
            elif is_picture:
                is_plain = ending in SUFFIXES
                pictures.append((key, is_plain, Member(title, info.offset_data, info.size)))
            elif ending in (".cls", ".json") and info.isreg():
                labels[key] = _label(opened, info, ending) or labels.get(key, "")
            else:
                index.ignored += 1
    finally:
        plain = {key for key, is_plain, _ in pictures if is_plain}
        for key, is_plain, member in pictures:
            if is_plain or key not in plain:
                index.members.append(Member(member.name, member.offset, member.size, labels.get(key, "")))
            else:
                index.ignored += 1


def _headers(opened: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Every member, and an error if the file doesn't end as tar files do."""
    with tarfile.open(fileobj=opened, mode="r:") as archive:
        while (info := archive.next()) is not None:
            yield info
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
        _check_end(opened, archive.offset)


def _check_end(opened: IO[bytes], offset: int) -> None:
    """Refuse silence: ``tarfile`` takes a broken header in the middle for the end."""
    opened.seek(offset)
    block = opened.read(_BLOCK)
    if len(block) < _BLOCK:
        raise tarfile.TarError("the end mark is missing; truncated?")
    if block.strip(b"\0"):
        raise tarfile.TarError("a broken header")
    while block := opened.read(_STEP):
        if block.strip(b"\0"):
            raise tarfile.TarError("more follows after the end mark; two files in one?")


def _key(path: PurePosixPath) -> tuple[str, str]:
    """A member's key and ending, divided at the first full stop of its own name."""
    stem, stop, ending = path.name.partition(".")
    return str(path.parent / stem), (stop + ending).lower()


def _problem(info: tarfile.TarInfo, length: int) -> str:
    if not info.isreg() or info.issparse():
        return "a link or a special file, not a picture's bytes"
    if info.size < 0:
        return "a negative size"
    return "truncated: the tar file ends before it" if info.offset_data + info.size > length else ""


def _label(opened: IO[bytes], info: tarfile.TarInfo, ending: str) -> str:
    """The class that a small text or JSON object names."""
    if not 0 <= info.size <= _LONGEST_NOTE:
        return ""
    opened.seek(info.offset_data)
    text = opened.read(info.size).decode("utf-8", "replace").strip()
    if ending == ".cls":
        return text
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    found = (content.get(key) for key in _CLASS_KEYS) if isinstance(content, dict) else iter(())
    return next((str(value) for value in found if isinstance(value, str | int)), "")
