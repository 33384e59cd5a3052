"""Pictures in one or more tar files (shards), read by their places."""

from array import array
from io import BytesIO
from pathlib import Path

from convscope.core.errors import ConvscopeError
from convscope.core.printable import printable
from convscope.data.damage import FORMATS_MEANT, Damage
from convscope.data.names import Names
from convscope.data.pictures import Pixels, read_picture
from convscope.data.tar.index import index_tar

_LARGEST = 1 << 30


class TarListing:
    """The pictures of tar files, shard after shard.

    The headers are read each time that a listing is made, about a minute for a million pictures, which take
    forty to decode; so no index is kept beside the shards, where it could be out of date.

    Args:
        files: uncompressed tar files.

    Attributes:
        title: what was listed, as part of a sentence.
        damaged: members that can't be read, and shards that break off.
        ignored: number of members that are neither pictures nor say a class.

    Raises:
        ConvscopeError: there is no picture in them, or one is compressed.
    """

    def __init__(self, files: list[Path]) -> None:
        more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
        self.title = f"tar file {str(files[0])!r}{more}"
        self.ignored = 0
        self._files = files
        self._titles = _titles(files)
        self._states = [_state(file) for file in files]
        self._members = Names()
        self._columns = {name: array("Q") for name in ("shard", "offset", "size", "label")}
        self._labels = {"": 0}
        damaged: list[Damage] = []
        for number in range(len(files)):
            damaged += self._add(number)
        self.damaged = tuple(damaged)
        self._label_names = tuple(self._labels)
        if not self._members:
            raise self._empty()

    def __len__(self) -> int:
        return len(self._members)

    def name(self, index: int) -> str:
        """Return a picture's name: that of the shard, a slash, that of the member."""
        return printable(f"{self._titles[self._columns['shard'][index]]}/{self._members[index]}")

    def label(self, index: int) -> str:
        """Return the class that a ``.cls`` or ``.json`` member names; empty without one."""
        return printable(self._label_names[self._columns["label"][index]])

    def read(self, index: int) -> Pixels:
        """Return a picture's pixels, uint8 ``(h, w, 3)``.

        Raises:
            OSError: the shard can't be read, or has changed since it was listed.
            ValueError: the member is larger than 1 GiB.
            Exception: see :func:`~convscope.data.read_picture`.
        """
        shard, offset, size = (self._columns[name][index] for name in ("shard", "offset", "size"))
        if size > _LARGEST:
            raise ValueError(f"{size:,} bytes are more than {_LARGEST:,}")
        if _state(self._files[shard]) != self._states[shard]:
            raise OSError("the tar file has changed since it was listed")
        with self._files[shard].open("rb") as opened:
            opened.seek(offset)
            return read_picture(BytesIO(opened.read(size)))

    def fingerprint(self) -> str:
        """Return a hash of the members' names, places and sizes."""
        return self._members.digest(*self._columns.values())

    def _add(self, number: int) -> list[Damage]:
        index = index_tar(self._files[number], self._titles[number])
        self.ignored += index.ignored
        for member in index.members:
            self._members.append(member.name)
            label = self._labels.setdefault(member.label, len(self._labels))
            values = (number, member.offset, member.size, label)
            for column, value in zip(self._columns.values(), values, strict=True):
                column.append(value)
        return index.damaged

    def _empty(self) -> ConvscopeError:
        reasons = "".join(f"; {damage.path}: {damage.reason}" for damage in self.damaged[:3])
        return ConvscopeError(
            f"{self.title}: no whole picture ({self.ignored:,} other members{reasons})",
            f"members that are {FORMATS_MEANT} pictures by their names",
            "check the path given with --data",
        )


def _titles(files: list[Path]) -> list[str]:
    """File names, or whole paths where two shards have the same name."""
    names = [file.name for file in files]
    return names if len(set(names)) == len(names) else [str(file) for file in files]


def _state(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
