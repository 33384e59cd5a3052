"""Pictures of any source, opened: each is read once, and what is damaged or has no label is named.

Only reading tells a whole picture from a truncated one, so that it is done before training, as for folders.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from convscope.core.errors import ConvscopeError
from convscope.data.ahead import read_ahead
from convscope.data.damage import Damage, all_damaged, reason_of
from convscope.data.pictures import Pixels, fit
from convscope.data.splits import Labelled, Wish

MOST_CLASSES = 1_000_000

_READ_AHEAD = 64


class FittedPictures:
    """Some pictures of a source, read when they are asked for and fitted.

    Args:
        read: gives the pixels of an item, uint8 ``(h, w, c)``.
        items: which items they are.
        labels: the class number of each.
        wish: their size and channels.
        name: of the source, for messages.

    Attributes:
        labels: the class number of each picture.
    """

    def __init__(
        self,
        read: Callable[[int], Pixels],
        items: Sequence[int],
        labels: Sequence[int],
        wish: Wish,
        name: str,
    ) -> None:
        self.labels = tuple(labels)
        self._read = read
        self._items = tuple(items)
        self._size, self._channels, self._name = wish.size, wish.channels, name

    def __len__(self) -> int:
        return len(self._items)

    def read(self, index: int) -> Pixels:
        """Return one picture, uint8 ``(h, w, channels)``.

        Raises:
            ConvscopeError: it could be read when the set was opened, and no longer.
        """
        item = self._items[index]
        try:
            return fit(self._read(item), self._size, self._channels)
        except Exception as error:  # a source may raise anything
            raise ConvscopeError(
                f"{self._name}: item {item} has become unreadable ({reason_of(error)})",
                "what was there when it was opened",
                "start again",
            ) from error


Found = tuple[list[int], list[int], tuple[str, ...], tuple[Damage, ...]]
"""Items that are whole and labelled, their class numbers, the classes, and what was left out."""


def opened(
    check: Callable[[int], Any], length: int, names: Sequence[str] | None, name: str, threads: int = 0
) -> Found:
    """Return which items of a source can be learnt from.

    Args:
        check: reads an item and returns its label; an exception means that it is damaged.
        length: number of items.
        names: of the classes, by number; None: labels that are numbers are class numbers, and labels that
            are texts are the classes, sorted.
        name: of the source, for messages.
        threads: that read; 0 for sources that mayn't be read by several.

    Raises:
        ConvscopeError: there is no item, none can be read, none has a label, or a label is no class.
    """
    if not length:
        raise ConvscopeError(f"{name} is empty", "at least one picture", "check how it was made")

    def read(index: int) -> Any:
        try:
            return check(index)
        except ConvscopeError:
            raise
        except Exception as error:  # a source may raise anything
            return Damage(f"{name}, item {index}", reason_of(error))

    found = list(read_ahead(read, range(length), threads, _READ_AHEAD))
    damaged = [each for each in found if isinstance(each, Damage)]
    if len(damaged) == length:
        raise all_damaged(name, damaged)
    whole = [index for index, each in enumerate(found) if not isinstance(each, Damage)]
    labelled = [index for index in whole if not is_unlabelled(found[index])]
    if not labelled:
        raise unlabelled(name)
    nameless = [Damage(f"{name}, item {index}", "no label") for index in whole if is_unlabelled(found[index])]
    classes, labels = numbered([found[index] for index in labelled], names, name)
    return labelled, labels, classes, (*damaged, *nameless)


def labelled_pictures(read: Callable[[int], Pixels], found: Found, wish: Wish, name: str) -> Labelled:
    """Return what :func:`opened` found as labelled pictures, read by ``read`` from now on."""
    items, labels, classes, damaged = found
    return Labelled(FittedPictures(read, items, labels, wish, name), classes, name, damaged)


def numbered(
    values: Sequence[Any], names: Sequence[str] | None, name: str
) -> tuple[tuple[str, ...], list[int]]:
    """Return the classes and the class number of each label.

    Args:
        values: labels: all numbers from 0, or all texts.
        names: of the classes, by number, if they are known.
        name: of the source, for messages.

    Raises:
        ConvscopeError: a label is neither, or has no name.

    Example:
        >>> numbered(["dog", "cat"], None, "pets")
        (('cat', 'dog'), [1, 0])
    """
    if all(isinstance(value, str) for value in values):
        classes = tuple(sorted(set(values))) if names is None else tuple(names)
        numbers = {each: number for number, each in enumerate(classes)}
        if stranger := next((value for value in values if value not in numbers), None):
            raise _no_class(name, stranger, f"one of {', '.join(classes[:5])}…")
        return classes, [numbers[value] for value in values]
    labels = [_whole_number(value, name) for value in values]
    limit = MOST_CLASSES if names is None else len(names)
    if (largest := max(labels)) >= limit:
        raise _no_class(name, largest, f"a class number from 0 to {limit - 1:,}")
    return tuple(map(str, range(largest + 1)) if names is None else names), labels


def is_unlabelled(label: Any) -> bool:
    """Whether a label says that there is none: None, or a number below 0, as hidden test labels have."""
    return label is None or (isinstance(label, int | np.integer) and int(label) < 0)


def unlabelled(name: str) -> ConvscopeError:
    """Return the error for a source of which no picture has a label."""
    return ConvscopeError(
        f"{name} without labels",
        "a class number or a class name for each picture, to learn from",
        "give the labelled splits; pictures without labels can be looked at (gallery, stem)",
    )


def _whole_number(value: Any, name: str) -> int:
    if not isinstance(value, int | np.integer):
        raise _no_class(name, value, "one class a picture: a whole number from 0, or a text")
    return int(value)


def _no_class(name: str, label: Any, expected: str) -> ConvscopeError:
    text = f"{label!r}"
    shown = text if len(text) <= 60 else f"{text[:57]}…"
    return ConvscopeError(
        f"{name}: the label {shown} ({type(label).__name__})", expected, "correct the labels"
    )
