"""From labelled pictures to two splits: the user's own, or a fifth of each class set apart for validation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from convscope.data.damage import Damage
from convscope.data.images import ImageData, ImageSet, first_of_each_class
from convscope.data.normalisation import measured_normalisation
from convscope.data.pictures import Pictures, Pixels

_VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class Wish:
    """What was asked of a data set.

    Attributes:
        name: as the user wrote it.
        size: height and width of the images.
        channels: 3, or 1 for grey.
        seed: of whatever is drawn.
        per_class: at most so many images a class in each split; None: all.
    """

    name: str
    size: tuple[int, int]
    channels: int
    seed: int
    per_class: int | None


@dataclass(frozen=True)
class Labelled:
    """Pictures with classes, whole and fitted.

    Attributes:
        pictures: the pictures and their class numbers.
        classes: names in the order of the class numbers.
        place: where they are, such as a folder, for messages about a class.
        damaged: what was left out, with reasons.
        ignored: number of files that aren't pictures.
    """

    pictures: Pictures
    classes: tuple[str, ...]
    place: str
    damaged: tuple[Damage, ...] = ()
    ignored: int = 0


class _Matched:
    """Some pictures of a set, under the class numbers of another."""

    def __init__(self, pictures: Pictures, kept: Sequence[int], labels: Iterable[int]) -> None:
        self.labels = tuple(labels)
        self._pictures = pictures
        self._kept = tuple(kept)

    def read(self, index: int) -> Pixels:
        return self._pictures.read(self._kept[index])


def set_apart(wish: Wish, every: Labelled) -> ImageData:
    """Return one set of pictures as two splits: a fifth of each class is for validation."""
    train, validation = divided(every.pictures.labels, wish.seed)
    data = assembled(wish, every.classes, (every.pictures, train), (every.pictures, validation))
    return replace(data, damaged=every.damaged, ignored=every.ignored)


def as_given(wish: Wish, train: Labelled, validation: Labelled) -> ImageData:
    """Return the user's own splits, with the training pictures' classes, matched by name.

    Validation pictures of other classes are left out, and each such class is listed with what is damaged.
    """
    numbers = {name: number for number, name in enumerate(train.classes)}
    labels = validation.pictures.labels
    known = [place for place, label in enumerate(labels) if validation.classes[label] in numbers]
    present = [validation.classes[label] for label in sorted(set(labels))]
    unknown = tuple(
        Damage(str(Path(validation.place) / name), "a class without training images")
        for name in present
        if name not in numbers
    )
    matched = _Matched(
        validation.pictures, known, (numbers[validation.classes[labels[place]]] for place in known)
    )
    data = assembled(
        wish,
        train.classes,
        (train.pictures, range(len(train.pictures.labels))),
        (matched, range(len(matched.labels))),
    )
    return replace(
        data,
        damaged=(*train.damaged, *validation.damaged, *unknown),
        ignored=train.ignored + validation.ignored,
    )


def assembled(
    wish: Wish,
    classes: tuple[str, ...],
    train: tuple[Pictures, Sequence[int]],
    validation: tuple[Pictures, Sequence[int]],
) -> ImageData:
    """Return two splits, normalised with what the training pictures have.

    Args:
        wish: the name, the size, and how many of each class.
        classes: their names.
        train: pictures, and which of them to learn from.
        validation: the same, to judge by.
    """
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


def divided(labels: tuple[int, ...], seed: int) -> tuple[list[int], list[int]]:
    """Return indices for training and validation: a fifth of each class, at least one where there are two."""
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
