"""Which pictures are there? Found by name, read when they are asked for.

``list_pictures`` takes a folder, tar files, or a Hugging Face data set, and opens no picture: a million are
listed in seconds. What is damaged shows when it is read (:func:`~convscope.data.folder.open_folder` decodes
everything first, as training needs it).
"""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from convscope.core.errors import ConvscopeError
from convscope.core.paths import exists
from convscope.data import hugging_face
from convscope.data.damage import Damage
from convscope.data.pictures import Pixels
from convscope.data.split_names import two_splits
from convscope.data.tar.patterns import names_archives, shard_files
from convscope.data.tar.shards import TarListing
from convscope.data.tree import FolderListing


class Listing(Protocol):
    """Pictures that were found and not opened.

    Attributes:
        title: what was listed, as part of a sentence.
        damaged: what was found to be unusable while listing; damaged pictures show when they are read.
        ignored: number of files that aren't pictures.
    """

    @property
    def title(self) -> str: ...  # noqa: D102
    @property
    def damaged(self) -> tuple[Damage, ...]: ...  # noqa: D102
    @property
    def ignored(self) -> int: ...  # noqa: D102

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return what a picture is called, on one line."""
        ...

    def label(self, index: int) -> str:
        """Return the name of its class; empty where nobody says."""
        ...

    def read(self, index: int) -> Pixels:
        """Return its pixels, uint8 ``(h, w, 3)``; any exception means that it is damaged."""
        ...

    def fingerprint(self) -> str:
        """Return a hash of names and sizes, by which the same pictures are known again."""
        ...


def list_pictures(pictures: Any) -> Listing:
    """Return the pictures of a folder, of tar files, or of a Hugging Face data set, without opening them.

    =========================  ====================================================================
    ``pictures``               what is listed
    =========================  ====================================================================
    a folder                   pictures at any depth, in the order of their paths; the first folder
                               on the way is the class. Links are followed, unless they lead back up
    ``"s/{000..009}.tar"``     members that are pictures, shard after shard, in their order there;
                               also one tar file, a glob such as ``"s/*.tar"``, or a list of these.
                               The class is what a ``.cls`` or ``.json`` of the same key says
    a ``datasets.Dataset``     its rows; the first column of pictures (the one called ``image`` if
                               there is one), or of arrays (h, w, 3)
    a folder of ``datasets``   what ``Dataset.save_to_disk`` wrote
    ``"hf:FOLDER"``            the validation split of a folder that ``datasets`` reads, or its only one
    a listing                  itself
    =========================  ====================================================================

    Raises:
        ConvscopeError: there is nothing like it, or no picture in it; an archive is compressed.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "red").mkdir()
        >>> Image.new("RGB", (6, 4), "red").save(folder / "red" / "a.png")
        >>> found = list_pictures(folder)
        >>> len(found), found.name(0), found.label(0), found.read(0).shape
        (1, 'red/a.png', 'red', (4, 6, 3))
    """
    if isinstance(pictures, FolderListing | TarListing | hugging_face.RowListing):
        return pictures
    if hugging_face.is_data_set(pictures):
        return hugging_face.RowListing(pictures)
    if isinstance(pictures, str) and pictures.startswith(hugging_face.PREFIX):
        train, validation = two_splits(hugging_face.named_splits(pictures), f"data set {pictures!r}")
        return hugging_face.RowListing(train if validation is None else validation)
    if names_archives(pictures):
        return TarListing(shard_files(pictures))
    if not isinstance(pictures, str | Path):
        raise ConvscopeError(
            f"pictures from a {type(pictures).__name__}",
            "a folder, tar files, or a Hugging Face data set",
            "pass tensors, a Dataset or a loader as they are",
        )
    root = Path(pictures)
    if not exists(root):
        raise no_such_data(str(pictures), ())
    if hugging_face.is_saved(root):
        return hugging_face.RowListing(hugging_face.from_disk(root))
    return FolderListing(root)


def no_such_data(reference: str, sets: Iterable[str]) -> ConvscopeError:
    """Return the error for a text that names neither a data set nor pictures, with what comes close."""
    path = Path(reference)
    try:
        beside = [entry.name for entry in path.parent.iterdir() if entry.is_dir() or entry.suffix == ".tar"]
    except OSError:
        beside = []
    close = difflib.get_close_matches(reference, sets, 1) or [
        str(path.parent / name) for name in difflib.get_close_matches(path.name, beside, 1)
    ]
    return ConvscopeError(
        f"unknown data set {reference!r}",
        f"{', '.join((*sets, 'or '))}a folder of pictures that exists" if sets else "a folder that exists",
        f"did you mean {close[0]!r}?"
        if close
        else "check the path given with --data"
        if sets
        else "check the path",
    )
