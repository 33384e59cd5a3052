"""From a text to images: ``photos``, ``digits``, or any folder of pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from convscope.core.errors import ConvscopeError
from convscope.data import digits, photos
from convscope.data.damage import Damage
from convscope.data.folder import Folder, FolderPictures, open_folder
from convscope.data.images import ImageData, ImageSet, first_of_each_class
from convscope.data.listing import no_such_data
from convscope.data.normalisation import measured_normalisation
from convscope.data.pictures import Pictures
from convscope.data.tar.patterns import names_archives

Size = int | tuple[int, int]

_VALIDATION_SHARE = 0.2
_TRAIN_FOLDERS = ("train", "training")
_VALIDATION_FOLDERS = ("validation", "val", "valid", "test")


@dataclass(frozen=True)
class _Wish:
    name: str
    size: tuple[int, int]
    channels: int
    seed: int
    per_class: int | None


def load_data(
    reference: str | Path, *, size: Size, channels: int = 3, seed: int = 0, per_class: int | None = None
) -> ImageData:
    """Return the images that a text names, split for training and validation.

    =============  ===============================================================================
    reference      images
    =============  ===============================================================================
    ``photos``     patches of ten colour photographs; see :mod:`convscope.data.photos`
    ``digits``     scikit-learn's handwritten digits; see :mod:`convscope.data.digits`
    a folder       a subfolder for each class, or pictures without classes. Subfolders ``train`` and
                   ``validation`` (``val``, ``valid``, ``test``) are the splits; without them a fifth
                   of each class, chosen by ``seed``, is for validation
    =============  ===============================================================================

    Args:
        reference: one of the above. A folder of the name ``photos`` is ``./photos``.
        size: side of the images or ``(height, width)``, in pixels.
        channels: 3, or 1 for grey.
        seed: of the places of patches, and of the split of folders and digits.
        per_class: at most so many images a class in each split; None: all.

    Raises:
        ConvscopeError: no such data set or folder, no whole picture in it, or a package is missing.

    Example:
        >>> data = load_data("digits", size=32, channels=1)
        >>> len(data.train) + len(data.validation), data.input_shape
        (1797, (1, 32, 32))
    """
    height, width = (size, size) if isinstance(size, int) else size
    if (
        min(height, width) < 1
        or channels not in (1, 3)
        or seed < 0
        or (per_class is not None and per_class < 1)
    ):
        raise ConvscopeError(
            f"data set {str(reference)!r}: size={size}, channels={channels}, seed={seed}, "
            f"per_class={per_class}",
            "positive numbers, 1 or 3 channels, and a seed from 0",
            "correct the option",
        )
    wish = _Wish(str(reference), (height, width), channels, seed, per_class)
    return SETS[wish.name](wish) if wish.name in SETS else _folder(wish)


def _photos(wish: _Wish) -> ImageData:
    train, validation = (
        photos.PhotoPatches(split, wish.size, wish.channels, wish.seed) for split in ("train", "validation")
    )
    return _assembled(wish, photos.CLASSES, (train, range(len(train))), (validation, range(len(validation))))


def _digits(wish: _Wish) -> ImageData:
    pictures = digits.Digits(wish.size, wish.channels)
    train, validation = _divided(pictures.labels, wish.seed)
    return replace(_assembled(wish, digits.CLASSES, (pictures, train), (pictures, validation)), mirrors=False)


SETS: dict[str, Callable[[_Wish], ImageData]] = {"photos": _photos, "digits": _digits}
"""Data sets by name."""


def _folder(wish: _Wish) -> ImageData:
    root = Path(wish.name)
    if names_archives(wish.name):
        raise ConvscopeError(
            f"data set {wish.name!r}",
            f"{', '.join(SETS)}, or a folder of pictures: tar files can be looked at but not learnt from",
            "unpack them",
        )
    if not root.exists():
        raise no_such_data(wish.name, SETS)
    splits = split_folders(root)
    if splits is not None:
        return _two_folders(wish, *map(open_folder, splits))
    folder = open_folder(root)
    pictures = FolderPictures(folder, wish.size, wish.channels)
    train, validation = _divided(folder.labels, wish.seed)
    data = _assembled(wish, folder.classes, (pictures, train), (pictures, validation))
    return replace(data, damaged=folder.damaged, ignored=folder.ignored)


def _two_folders(wish: _Wish, train: Folder, validation: Folder) -> ImageData:
    """Splits that the user made; classes that only one of them has are the training folder's business."""
    numbers = {name: number for number, name in enumerate(train.classes)}
    strangers = [name for name in validation.classes if name not in numbers]
    known = [place for place, label in enumerate(validation.labels) if validation.classes[label] in numbers]
    matched = replace(
        validation,
        files=tuple(validation.files[place] for place in known),
        labels=tuple(numbers[validation.classes[validation.labels[place]]] for place in known),
    )
    first, second = (FolderPictures(folder, wish.size, wish.channels) for folder in (train, matched))
    data = _assembled(wish, train.classes, (first, range(len(first))), (second, range(len(second))))
    unknown = tuple(
        Damage(str(validation.root / name), "a class without training images") for name in strangers
    )
    damaged = (*train.damaged, *validation.damaged, *unknown)
    return replace(data, damaged=damaged, ignored=train.ignored + validation.ignored)


def _assembled(
    wish: _Wish,
    classes: tuple[str, ...],
    train: tuple[Pictures, Sequence[int]],
    validation: tuple[Pictures, Sequence[int]],
) -> ImageData:
    (first, first_indices), (second, second_indices) = train, validation
    if wish.per_class is not None:
        first_indices = first_of_each_class(first, first_indices, wish.per_class)
        second_indices = first_of_each_class(second, second_indices, wish.per_class)
    normalisation = measured_normalisation(first, first_indices)
    return ImageData(
        name=wish.name,
        classes=classes,
        train=ImageSet(first, first_indices, normalisation),
        validation=ImageSet(second, second_indices, normalisation),
        normalisation=normalisation,
        size=wish.size,
    )


def _divided(labels: tuple[int, ...], seed: int) -> tuple[list[int], list[int]]:
    """Indices for training and validation: a fifth of each class, at least one where there are two."""
    random = np.random.default_rng(seed)
    train: list[int] = []
    validation: list[int] = []
    every = np.asarray(labels)
    for label in np.unique(every):
        members = random.permutation(np.flatnonzero(every == label)).tolist()
        count = max(1, round(len(members) * _VALIDATION_SHARE)) if len(members) > 1 else 0
        validation += members[:count]
        train += members[count:]
    return sorted(train), sorted(validation)


def split_folders(root: Path) -> tuple[Path, Path] | None:
    """Return the subfolders for training and for validation, if a folder has both."""
    train, validation = _subfolder(root, _TRAIN_FOLDERS), _subfolder(root, _VALIDATION_FOLDERS)
    return None if train is None or validation is None else (train, validation)


def _subfolder(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)
