"""Which split is to learn from and which to judge by? Told by name, for folders and for data sets alike."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from convscope.core.errors import ConvscopeError

TRAIN_NAMES = ("train", "training")
VALIDATION_NAMES = ("validation", "val", "valid", "test")

Part = TypeVar("Part")


def split_folders(root: Path) -> tuple[Path, Path] | None:
    """Return the subfolders for training and for validation, if a folder has both."""
    folders = {name: root / name for name in (*TRAIN_NAMES, *VALIDATION_NAMES) if (root / name).is_dir()}
    train, validation = _first_of(folders, TRAIN_NAMES), _first_of(folders, VALIDATION_NAMES)
    return None if train is None or validation is None else (train, validation)


def two_splits(splits: Mapping[str, Any], name: str) -> tuple[Any, Any | None]:
    """Return the split to learn from, and the one to judge by if there is one.

    ``train`` or ``training``, and the first of ``validation``, ``val``, ``valid`` and ``test``. A single
    split, whatever its name, is to learn from. Other splits aren't used.

    Args:
        splits: by name.
        name: of the whole, for messages.

    Raises:
        ConvscopeError: there are several splits and none to learn from, or none at all.
    """
    if len(splits) == 1:
        return next(iter(splits.values())), None
    train = _first_of(splits, TRAIN_NAMES)
    if train is None:
        raise ConvscopeError(
            f"{name} with {'the splits ' + ', '.join(map(str, splits)) if splits else 'no split'}",
            f"one called {' or '.join(TRAIN_NAMES)}",
            "give a pair of data sets, (training, validation), from Python",
        )
    return train, _first_of(splits, VALIDATION_NAMES)


def _first_of(splits: Mapping[str, Part], names: Iterable[str]) -> Part | None:
    return next((splits[name] for name in names if name in splits), None)
