"""Which classes a network takes for which: counts of (true class, predicted class), and what follows."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_file
from convscope.core.result import Result

FILE_NAME = "confusion.json"
"""Name of the file in a run's folder."""


@dataclass(frozen=True)
class Mixup:
    """One class taken for another.

    Attributes:
        true: number of the class that the images are of.
        predicted: number of the class that has the highest score.
        count: how many images.
        share: of the true class's images.
    """

    true: int
    predicted: int
    count: int
    share: float


@dataclass(frozen=True)
class Confusion(Result):
    """How often each class was taken for each; rows are true classes, columns predicted ones.

    The table is stored by its cells that aren't 0: of 1,000 classes a validation set fills few of a million.

    Attributes:
        classes: their names, by number.
        counts: ``(true, predicted, count)`` with counts from 1, sorted.
        unanswered: ``(true, count)``: images without a predicted class, because a score is NaN or the
            highest one belongs to none of ``classes``; never right.
        epoch: after which epoch of a run, from 1; None outside of one.

    Example:
        >>> confusion = Confusion(("cat", "dog"), ((0, 0, 6), (0, 1, 2), (1, 1, 4)))
        >>> confusion.recall, confusion.precision
        ((0.75, 1.0), (1.0, 0.6666666666666666))
        >>> confusion.most_confused(1)
        (Mixup(true=0, predicted=1, count=2, share=0.25),)
    """

    classes: tuple[str, ...]
    counts: tuple[tuple[int, int, int], ...]
    unanswered: tuple[tuple[int, int], ...] = ()
    epoch: int | None = None

    @property
    def table(self) -> list[list[int]]:
        """The whole table, ``K`` rows of ``K`` counts."""
        rows = [[0] * len(self.classes) for _ in self.classes]
        for true, predicted, count in self.counts:
            rows[true][predicted] = count
        return rows

    @property
    def recall(self) -> tuple[float | None, ...]:
        """Share of each class's images that were recognised; None for a class without images."""
        right, images = self._right(), self._images()
        return tuple(right[k] / images[k] if images[k] else None for k in range(len(self.classes)))

    @property
    def precision(self) -> tuple[float | None, ...]:
        """Share of the images taken for a class that are of it; None for a class never predicted."""
        right, taken = self._right(), Counter[int]()
        for _, predicted, count in self.counts:
            taken[predicted] += count
        return tuple(right[k] / taken[k] if taken[k] else None for k in range(len(self.classes)))

    @property
    def accuracy(self) -> float | None:
        """Share of all images that were recognised; None without images."""
        total = self._images().total()
        return self._right().total() / total if total else None

    def most_confused(self, n: int = 5) -> tuple[Mixup, ...]:
        """Return the ``n`` pairs of classes most often mixed up, by images; the larger share breaks ties."""
        images = self._images()
        wrong = [Mixup(t, p, count, count / images[t]) for t, p, count in self.counts if t != p]
        return tuple(
            sorted(wrong, key=lambda each: (-each.count, -each.share, each.true, each.predicted))[:n]
        )

    def _right(self) -> Counter[int]:
        return Counter({true: count for true, predicted, count in self.counts if true == predicted})

    def _images(self) -> Counter[int]:
        images = Counter[int]()
        for true, _, count in self.counts:
            images[true] += count
        for true, count in self.unanswered:
            images[true] += count
        return images


def save_confusion(path: str | Path, confusion: Confusion) -> None:
    """Write a confusion as JSON; the file at ``path`` is the old one or the new one at every moment.

    Raises:
        ConvscopeError: the file can't be written.
    """
    with whole_file(path) as temporary:
        temporary.write_text(confusion.to_json() + "\n", encoding="utf-8")


def load_confusion(path: str | Path) -> Confusion:
    """Return what :func:`save_confusion` wrote.

    Raises:
        ConvscopeError: the file can't be read or isn't such a file.
    """
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))
        confusion = Confusion(
            classes=tuple(str(name) for name in told["classes"]),
            counts=tuple(_three(cell) for cell in told["counts"]),
            unanswered=tuple((int(true), int(count)) for true, count in told["unanswered"]),
            epoch=told["epoch"],
        )
        if any(not 0 <= k < len(confusion.classes) for t, p, _ in confusion.counts for k in (t, p)):
            raise ValueError("a class number without a class")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConvscopeError(
            f"{str(path)!r} is no confusion table ({type(error).__name__}: {error})",
            f"a whole {FILE_NAME} of a run",
            "restore it, or delete it and train on: the next best epoch writes it again",
        ) from error
    return confusion


def _three(cell: Any) -> tuple[int, int, int]:
    true, predicted, count = cell
    return int(true), int(predicted), int(count)
