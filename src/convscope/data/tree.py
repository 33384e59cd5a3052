"""A folder of pictures of any number, listed by name and size alone."""

import os
from array import array
from pathlib import Path

from convscope.core.errors import ConvscopeError
from convscope.core.printable import printable
from convscope.data.damage import FORMATS_MEANT, Damage, reason_of
from convscope.data.names import Names
from convscope.data.pictures import OTHER_FORMATS, SUFFIXES, Pixels, read_picture


class FolderListing:
    """The pictures below a folder, in the order of their paths; hidden files and folders don't count.

    Args:
        root: the folder. Links to folders are followed, unless they lead back to one above.

    Attributes:
        title: what was listed, as part of a sentence.
        damaged: folders that can't be read, links that lead nowhere or back, what has a picture's name but
            isn't a file, and pictures in formats that aren't read, by their names.
        ignored: number of files that aren't called pictures.

    Raises:
        ConvscopeError: the folder can't be read or holds no picture.
    """

    def __init__(self, root: Path) -> None:
        self.title = f"folder {str(root)!r}"
        self.ignored = 0
        self._root = root
        self._names = Names()
        self._sizes = array("Q")
        damaged: list[Damage] = []
        try:
            self._walk("", (), damaged)
        except OSError as error:
            raise _unusable(root, reason_of(error)) from error
        self.damaged = tuple(damaged)
        if not self._names:
            raise _unusable(root, self._what_instead(), self._has_archives())

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """Return a picture's path below the folder."""
        return printable(self._names[index])

    def label(self, index: int) -> str:
        """Return the first folder on the way to a picture; empty for those that lie in the folder itself."""
        first, slash, _ = self._names[index].partition("/")
        return printable(first) if slash else ""

    def read(self, index: int) -> Pixels:
        """Return a picture's pixels, uint8 ``(h, w, 3)``; see :func:`~convscope.data.read_picture`."""
        return read_picture(self._root / self._names[index])

    def fingerprint(self) -> str:
        """Return a hash of all paths below the folder, and of the files' sizes."""
        return self._names.digest(self._sizes)

    def _walk(self, below: str, above: tuple[tuple[int, int], ...], damaged: list[Damage]) -> None:
        folder = self._root / below
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            damaged.append(Damage(below, "a link back to a folder above it"))
            return
        with os.scandir(folder) as found:
            entries = sorted((e for e in found if not e.name.startswith(".")), key=lambda e: e.name)
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            try:
                if entry.is_dir():
                    self._walk(path, (*above, here), damaged)
                else:
                    self._take(entry, path, damaged)
            except OSError as error:
                damaged.append(Damage(path, reason_of(error)))

    def _take(self, entry: os.DirEntry[str], path: str, damaged: list[Damage]) -> None:
        suffix = Path(entry.name).suffix.lower()
        if suffix in OTHER_FORMATS:
            damaged.append(Damage(path, f"not a {FORMATS_MEANT} picture"))
        elif suffix not in SUFFIXES:
            self.ignored += 1
        elif entry.is_file():
            self._sizes.append(entry.stat().st_size)
            self._names.append(path)
        else:
            damaged.append(
                Damage(path, "a link that leads nowhere" if entry.is_symlink() else "not a regular file")
            )

    def _what_instead(self) -> str:
        damaged = "".join(f"; {damage.path}: {damage.reason}" for damage in self.damaged[:3])
        return f"holds no picture ({self.ignored:,} other files{damaged})"

    def _has_archives(self) -> bool:
        return any(file.suffix == ".tar" for file in self._root.iterdir())


def _unusable(root: Path, what: str, has_archives: bool = False) -> ConvscopeError:
    return ConvscopeError(
        f"data folder {str(root)!r} {what}",
        f"a folder of {FORMATS_MEANT} pictures",
        f"for the tar files in it, give {str(root / '*.tar')!r}" if has_archives else "check the path",
    )
