"""Rows of a Hugging Face ``datasets.Dataset`` as pictures, read with our own rules for colours and damage.

The package ``datasets`` is imported only to open a folder that it wrote; a data set that is handed over
brings it along. Limits: data sets in memory or on disk, which have a length; not streams.
"""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from convscope.core.errors import ConvscopeError
from convscope.core.paths import is_folder
from convscope.core.printable import printable
from convscope.data.damage import Damage, reason_of
from convscope.data.pictures import Pixels, evenly_spaced, read_picture

PREFIX = "hf:"

_SAVED, _SAVED_SPLITS = ("state.json", "dataset_info.json"), "dataset_dict.json"
_PREFERRED = "image"
_SAMPLE = 32


def is_data_set(given: Any) -> bool:
    """Whether something is one of ``datasets``' own kinds, told without importing it."""
    return type(given).__module__.split(".")[0] == "datasets"


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote a folder."""
    return (folder / _SAVED_SPLITS).is_file() or all((folder / name).is_file() for name in _SAVED)


def from_disk(folder: Path) -> Any:
    """Return the ``datasets.Dataset`` that ``save_to_disk`` wrote.

    Raises:
        ConvscopeError: it holds several splits, is broken, or the package is missing.
    """
    found = _opened(folder)
    if isinstance(found, dict):
        raise _several(f"data set {str(folder)!r}", [str(folder / split) for split in found])
    return found


def named_splits(reference: str) -> dict[str, Any]:
    """Return the splits of ``hf:FOLDER``, by name; see :func:`splits_in`.

    Raises:
        ConvscopeError: there is no such folder, or see :func:`splits_in`.
    """
    folder = Path(reference.removeprefix(PREFIX))
    if is_folder(folder):
        return splits_in(folder)
    raise ConvscopeError(
        f"data set {reference!r}: there is no folder {str(folder)!r}",
        "a folder on this machine: nothing is downloaded here",
        "get it with `hf download --repo-type dataset NAME --local-dir FOLDER` or with "
        "datasets.load_dataset(NAME).save_to_disk(FOLDER)",
    )


def splits_in(folder: Path) -> dict[str, Any]:
    """Return the splits of a data set on disk, by name.

    What ``save_to_disk`` wrote is opened where it is. Of other folders, such as one of parquet files, the
    package ``datasets`` makes a copy in its own cache, as it always does.

    Raises:
        ConvscopeError: the folder holds no data set, is broken, or the package is missing.
    """
    found = _opened(folder)
    return found if isinstance(found, dict) else {"train": found}


def _opened(folder: Path) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ConvscopeError(
            f"data set {str(folder)!r}: datasets can't be imported ({error})",
            "Hugging Face's datasets, which opens it",
            "pip install 'convscope[hf]'",
        ) from error
    saved = is_saved(folder)
    try:
        return datasets.load_from_disk(str(folder)) if saved else datasets.load_dataset(str(folder.resolve()))
    except Exception as error:  # broken files make Arrow raise almost anything
        raise ConvscopeError(
            f"data set {str(folder)!r} can't be opened ({reason_of(error)})",
            "what Dataset.save_to_disk wrote" if saved else "what datasets.load_dataset reads from a folder",
            "save it again" if saved else "check the folder; one of pictures needs no hf: before it",
        ) from error


class RowListing:
    """The rows of a data set that hold a picture each.

    Args:
        rows: a ``datasets.Dataset``, in any format; its transforms aren't applied.

    Attributes:
        title: what was listed, as part of a sentence.
        damaged, ignored: nothing; damaged rows show when they are read.

    Raises:
        ConvscopeError: it is a stream or several splits, is empty, or has no column of pictures.
    """

    title = "data set of Hugging Face"
    damaged: tuple[Damage, ...] = ()
    ignored = 0

    def __init__(self, rows: Any) -> None:
        if isinstance(rows, dict):
            raise _several("data set", list(rows))
        if not hasattr(rows, "__len__"):
            raise ConvscopeError(
                "a data set that streams", "one with a length", "load it without streaming=True"
            )
        self._column = _picture_column(rows.features)
        self._is_array = type(rows.features[self._column]).__name__ != "Image"
        self._features = rows.features
        plain = rows.with_format("numpy" if self._is_array else None)
        self._rows = plain.select_columns([self._column])
        if not self._is_array:
            self._rows = self._rows.cast_column(self._column, _undecoded(rows, self._column))
        label = next((name for name in ("label", "labels") if name in rows.features), None)
        self._labels = None if label is None else plain.with_format(None).select_columns([label])
        if not len(self._rows):
            raise ConvscopeError("a data set without rows", "at least one picture", "check how it was made")

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, index: int) -> str:
        """Return ``row`` and its number."""
        return f"row {index}"

    def label(self, index: int) -> str:
        """Return the name of a row's class; empty without a column ``label``."""
        if self._labels is None:
            return ""
        ((column, value),) = self._labels[index].items()
        names = getattr(self._features[column], "names", None)
        return printable(str(names[value] if names and value in range(len(names)) else value))

    def read(self, index: int) -> Pixels:
        """Return a row's picture, uint8 ``(h, w, 3)``.

        Raises:
            ValueError: the row is empty, or its array isn't (h, w), (h, w, 1) or (h, w, 3).
            Exception: see :func:`~convscope.data.read_picture`.
        """
        value = self._rows[index][self._column]
        if value is None:
            raise ValueError("no picture in this row")
        if self._is_array:
            return _as_colours(np.asarray(value))
        content = value["bytes"]
        return read_picture(BytesIO(content) if content is not None else value["path"])

    def fingerprint(self) -> str:
        """Return a hash of the number of rows, the columns, and what 32 rows hold."""
        total = hashlib.sha256(f"{len(self)} {self._column} {self._features}".encode())
        for index in evenly_spaced(len(self), _SAMPLE):
            value = self._rows[index][self._column]
            content = value if isinstance(value, dict) or value is None else np.asarray(value).tobytes()
            total.update(repr(content).encode("utf-8", "surrogateescape"))
        return total.hexdigest()


def _picture_column(features: Any) -> str:
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    found = [name for name, kind in kinds.items() if kind == "Image"] or [
        name
        for name, kind in kinds.items()
        if kind in ("Array2D", "Array3D") and features[name].dtype == "uint8"
    ]
    if not found:
        columns = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise ConvscopeError(
            f"a data set with the columns {columns}",
            "one whose feature is Image, or Array2D or Array3D of uint8",
            "cast it: dataset.cast_column('…', datasets.Image())",
        )
    return _PREFERRED if _PREFERRED in found else found[0]


def _undecoded(rows: Any, column: str) -> Any:
    """The column's feature, which gives the file's bytes rather than an open picture."""
    return type(rows.features[column])(decode=False)


def _as_colours(array: Any) -> Pixels:
    whole = array[..., None] if array.ndim == 2 else array
    if whole.ndim != 3 or whole.shape[2] not in (1, 3) or not whole.size:
        raise ValueError(f"an array of shape {array.shape} instead of (h, w, 3), (h, w, 1) or (h, w)")
    whole = whole.astype(np.uint8)  # datasets widens what it hands over
    return np.repeat(whole, 3, axis=2) if whole.shape[2] == 1 else np.ascontiguousarray(whole)


def _several(what: str, splits: list[str]) -> ConvscopeError:
    return ConvscopeError(
        f"{what} with several splits", "one of them", f"give {' or '.join(map(repr, splits))}"
    )
