"""A folder of pictures: a class for each subfolder; damaged files are named and left out, never fatal.

Opening a folder decodes every file once, on all cores, because only that tells a truncated picture from a
whole one. The pictures themselves stay on disk.
"""

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from convscope.core.errors import ConvscopeError
from convscope.data.damage import FORMATS_MEANT, Damage, reason_of
from convscope.data.pictures import OTHER_FORMATS, SUFFIXES, Pixels, fit, read_picture

UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class Folder:
    """The pictures of a folder.

    Attributes:
        root: the folder.
        classes: names of the subfolders with at least one whole picture, sorted; ``("unlabelled",)`` where
            the pictures lie in the folder itself.
        files: paths of whole pictures, sorted within each class.
        labels: the class number of each file.
        damaged: what was left out although it should have been a picture or a class.
        ignored: number of other files that were passed over.
    """

    root: Path
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: tuple[int, ...]
    damaged: tuple[Damage, ...]
    ignored: int


class FolderPictures:
    """A folder's pictures, read from disk when they are asked for.

    Args:
        folder: what :func:`open_folder` found.
        size: height and width that they are fitted to.
        channels: 3, or 1 for grey.

    Attributes:
        labels: the class number of each picture.
    """

    def __init__(self, folder: Folder, size: tuple[int, int], channels: int) -> None:
        self.labels = folder.labels
        self._files = folder.files
        self._size = size
        self._channels = channels

    def __len__(self) -> int:
        return len(self._files)

    def read(self, index: int) -> Pixels:
        """Return one picture, uint8 ``(h, w, channels)``.

        Raises:
            ConvscopeError: the file has changed since the folder was opened and can't be read any more.
        """
        file = self._files[index]
        try:
            return fit(read_picture(file), self._size, self._channels)
        except Exception as error:  # broken bytes make decoders raise almost anything
            raise ConvscopeError(
                f"picture {str(file)!r} has become unreadable ({type(error).__name__}: {error})",
                "the file that was there when the folder was opened",
                "start again",
            ) from error


def open_folder(root: str | Path) -> Folder:
    """Return what a folder of pictures holds.

    Subfolders are classes, and pictures at any depth inside belong to them; without subfolders that hold
    pictures, the folder's own pictures are one unlabelled class. Hidden files and folders don't count.

    Args:
        root: the folder.

    Raises:
        ConvscopeError: the folder is absent, can't be read, or holds no whole picture.
    """
    root = Path(root)
    try:
        entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise _unusable(root, f"can't be read ({error.strerror})") from error
    closed: list[Damage] = []
    classes = {entry.name: sorted(_files(entry, closed)) for entry in entries if entry.is_dir()}
    own = [entry for entry in entries if entry.is_file()]
    num_files = len(own) + sum(map(len, classes.values()))
    pictures = {name: [file for file in files if _is_picture(file)] for name, files in classes.items()}
    if not any(pictures.values()):
        pictures = {UNLABELLED: [file for file in own if _is_picture(file)]}
    foreign = [
        file for files in (own, *classes.values()) for file in files if file.suffix.lower() in OTHER_FORMATS
    ]
    closed += [Damage(str(file), f"not a {FORMATS_MEANT} picture") for file in foreign]
    ignored = num_files - sum(map(len, pictures.values())) - len(foreign)
    return _checked(root, pictures, tuple(closed), ignored)


def _checked(root: Path, pictures: dict[str, list[Path]], closed: tuple[Damage, ...], ignored: int) -> Folder:
    every = [file for files in pictures.values() for file in files]
    reasons = dict(zip(every, _problems(every), strict=True))
    whole = {name: [file for file in files if reasons[file] is None] for name, files in pictures.items()}
    damaged = [Damage(str(file), reason) for file, reason in reasons.items() if reason is not None]
    classes = tuple(name for name, files in whole.items() if files)
    if not classes:
        raise _unusable(
            root, f"holds no whole picture ({len(closed) + len(damaged)} damaged, {ignored} other files)"
        )
    empty = [
        Damage(str(root / name), "a class without a whole picture") for name in whole if name not in classes
    ]
    return Folder(
        root=root,
        classes=classes,
        files=tuple(file for name in classes for file in whole[name]),
        labels=tuple(label for label, name in enumerate(classes) for _ in whole[name]),
        damaged=(*closed, *damaged, *empty),
        ignored=ignored,
    )


def _problems(files: list[Path]) -> list[str | None]:
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as threads:
        # Pillow warns of large pictures and of odd metadata; the first has its own limit here.
        warnings.simplefilter("ignore")
        return list(threads.map(_problem, files))


def _problem(file: Path) -> str | None:
    try:
        if not file.is_file():  # a pipe would be waited for
            return "not a regular file, or a link that leads nowhere"
        read_picture(file)
    except Exception as error:  # broken bytes make decoders raise almost anything
        return reason_of(error)
    return None


def _files(folder: Path, closed: list[Damage]) -> Iterator[Path]:
    """All visible files below a folder; subfolders that can't be read go to ``closed``."""

    def note(error: OSError) -> None:
        closed.append(Damage(str(error.filename), f"can't be read ({error.strerror})"))

    for place, names, files in os.walk(folder, onerror=note):
        names[:] = [name for name in names if not name.startswith(".")]
        yield from (Path(place, name) for name in files if not name.startswith("."))


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES


def _unusable(root: Path, what: str) -> ConvscopeError:
    return ConvscopeError(
        f"data folder {str(root)!r} {what}",
        f"a folder of {FORMATS_MEANT} pictures, with a subfolder for each class",
        "check the path given with --data",
    )
