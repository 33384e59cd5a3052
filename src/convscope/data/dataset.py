"""From a text, or from data sets in memory, to images in two splits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from convscope.core.errors import ConvscopeError
from convscope.core.paths import exists
from convscope.core.preserved import preserved_rng
from convscope.data import digits, hugging_face, mnist, photos
from convscope.data.ahead import default_threads
from convscope.data.folder import Folder, FolderPictures, open_folder
from convscope.data.images import ImageData
from convscope.data.items import is_item_set, item_pictures
from convscope.data.listing import no_such_data
from convscope.data.rows import row_pictures
from convscope.data.split_names import split_folders, two_splits
from convscope.data.splits import Labelled, Wish, as_given, assembled, set_apart
from convscope.data.tar.patterns import names_archives
from convscope.data.torchvision_sets import NOT_MIRRORED, torchvision_pair
from convscope.data.torchvision_sets import PREFIX as TORCHVISION

Size = int | tuple[int, int]


def load_data(
    reference: Any, *, size: Size, channels: int = 3, seed: int = 0, per_class: int | None = None
) -> ImageData:
    """Return the images that a text names, or that data sets hold, split for training and validation.

    =========================  ====================================================================
    reference                  images
    =========================  ====================================================================
    ``photos``                 patches of ten colour photographs; see :mod:`convscope.data.photos`
    ``digits``                 scikit-learn's handwritten digits; see :mod:`convscope.data.digits`
    ``mnist5k``                5,000 digits of MNIST; see :mod:`convscope.data.mnist`
    a folder                   a subfolder for each class, or pictures without classes. Subfolders
                               ``train`` and ``validation`` (``val``, ``valid``, ``test``) are the splits
    a folder of ``datasets``   what ``save_to_disk`` wrote, of one split or of several
    ``hf:FOLDER``              the same, or any folder that ``datasets.load_dataset`` reads, such as one
                               of parquet files; see :mod:`convscope.data.rows` for its columns
    ``torchvision:NAME``       a data set of torchvision in this folder, or in ``torchvision:NAME:FOLDER``;
                               see :mod:`convscope.data.torchvision_sets`
    a data set                 of PyTorch, torchvision or ``datasets``: items of an image and a label; see
                               :mod:`convscope.data.items`
    a pair of data sets        ``(training, validation)``
    =========================  ====================================================================

    Where only one split is given, a fifth of each class, chosen by ``seed``, is for validation. Classes are
    the training images', matched by name. Nothing is downloaded.

    Args:
        reference: one of the above. A folder of the name ``photos`` is ``./photos``.
        size: side of the images or ``(height, width)``, in pixels.
        channels: 3, or 1 for grey.
        seed: of the places of patches, and of what is set apart for validation.
        per_class: at most so many images a class in each split; None: all.

    Raises:
        ConvscopeError: no such data set or folder, no whole picture in it, no labels; a package is missing.

    Example:
        >>> data = load_data("digits", size=32, channels=1)
        >>> len(data.train) + len(data.validation), data.input_shape
        (1797, (1, 32, 32))
    """
    is_text = isinstance(reference, str | Path)
    height, width = (size, size) if isinstance(size, int) else size
    name = str(reference) if is_text else _name_of(reference)
    if (
        min(height, width) < 1
        or channels not in (1, 3)
        or seed < 0
        or (per_class is not None and per_class < 1)
    ):
        raise ConvscopeError(
            f"data set {name!r}: size={size}, channels={channels}, seed={seed}, per_class={per_class}",
            "positive numbers, 1 or 3 channels, and a seed from 0",
            "correct the option",
        )
    wish = Wish(name, (height, width), channels, seed, per_class)
    return _named(wish) if is_text else _objects(wish, reference)


def names_data_set(reference: str) -> bool:
    """Whether a text names a data set that is loaded, rather than pictures that can be listed."""
    return reference in SETS or reference.startswith(TORCHVISION)


def _photos(wish: Wish) -> ImageData:
    train, validation = (
        photos.PhotoPatches(split, wish.size, wish.channels, wish.seed) for split in ("train", "validation")
    )
    return assembled(wish, photos.CLASSES, (train, range(len(train))), (validation, range(len(validation))))


def _digits(wish: Wish) -> ImageData:
    pictures = digits.digits(wish.size, wish.channels)
    return replace(set_apart(wish, Labelled(pictures, digits.CLASSES, wish.name)), mirrors=False)


def _mnist(wish: Wish) -> ImageData:
    pictures = mnist.mnist5k(wish.size, wish.channels)
    return replace(set_apart(wish, Labelled(pictures, mnist.CLASSES, wish.name)), mirrors=False)


SETS: dict[str, Callable[[Wish], ImageData]] = {"photos": _photos, "digits": _digits, "mnist5k": _mnist}
"""Data sets by name."""


def _named(wish: Wish) -> ImageData:
    if wish.name in SETS:
        return SETS[wish.name](wish)
    if wish.name.startswith(TORCHVISION):
        return _in_splits(wish, *torchvision_pair(wish.name), threads=default_threads())
    if wish.name.startswith(hugging_face.PREFIX):
        return _in_splits(wish, *two_splits(hugging_face.named_splits(wish.name), f"data set {wish.name!r}"))
    root = Path(wish.name)
    if names_archives(wish.name):
        raise ConvscopeError(
            f"data set {wish.name!r}",
            f"{', '.join(SETS)}, or a folder of pictures: tar files can be looked at but not learnt from",
            "unpack them",
        )
    if not exists(root):
        raise no_such_data(wish.name, SETS)
    if hugging_face.is_saved(root):
        return _in_splits(wish, *two_splits(hugging_face.splits_in(root), f"data set {wish.name!r}"))
    return _folder(wish, root)


def _folder(wish: Wish, root: Path) -> ImageData:
    def labelled(folder: Folder) -> Labelled:
        pictures = FolderPictures(folder, wish.size, wish.channels)
        return Labelled(pictures, folder.classes, str(folder.root), folder.damaged, folder.ignored)

    splits = split_folders(root)
    if splits is None:
        return set_apart(wish, labelled(open_folder(root)))
    train, validation = (labelled(open_folder(split)) for split in splits)
    return as_given(wish, train, validation)


def _objects(wish: Wish, given: Any) -> ImageData:
    if isinstance(given, dict):  # DatasetDict is one
        return _in_splits(wish, *two_splits(given, wish.name))
    if isinstance(given, tuple | list):
        if len(given) != 2:
            raise ConvscopeError(f"{len(given)} data sets", "a pair: training and validation", "give two")
        return _in_splits(wish, *given)
    return _in_splits(wish, given, None)


def _in_splits(wish: Wish, train: Any, validation: Any | None, threads: int = 0) -> ImageData:
    """Data sets as splits; what they draw while they are read leaves the global generators as they were."""
    names = [wish.name] if validation is None else [f"{wish.name}, {split}" for split in _SPLITS]
    with preserved_rng():
        found = [
            _labelled(wish, given, name, threads)
            for given, name in zip((train, validation), names, strict=False)
        ]
        data = as_given(wish, *found) if len(found) == 2 else set_apart(wish, found[0])
    return replace(data, mirrors=type(train).__name__ not in NOT_MIRRORED)


_SPLITS = ("training", "validation")


def _labelled(wish: Wish, given: Any, name: str, threads: int) -> Labelled:
    if hugging_face.is_data_set(given):
        return row_pictures(given, wish, name)
    if not is_item_set(given):
        raise ConvscopeError(
            f"data from a {type(given).__name__}",
            "a text, a data set of images and labels, or a pair of those",
            "see convscope.data.load_data",
        )
    return item_pictures(given, wish, name, threads)


def _name_of(given: Any) -> str:
    first = given[0] if isinstance(given, tuple | list) and given else given
    return type(first).__name__
