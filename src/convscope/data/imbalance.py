"""How unequal are the classes? The largest against the smallest."""

from collections.abc import Sequence
from dataclasses import dataclass

WORTH_TELLING = 2.0
"""The ratio of training images from which imbalance is told. ImageNet's 1,300 to 732 a class, a ratio of 1.8
(Russakovsky et al. 2015, table 2), is trained on without a remedy. From 2 on, a network that always answers
the larger of two classes is right for two thirds of the training images, and accuracy hides that."""


@dataclass(frozen=True)
class Imbalance:
    """The most and the least frequent class of the training images, among those that have any.

    Attributes:
        largest: name of the class with most images; the first of several.
        most: how many it has.
        smallest: name of the class with fewest; the first of several.
        least: how many it has, at least 1.

    Example:
        >>> print(Imbalance("cats", 500, "dogs", 40))
        cats has 12.5 times as many training images as dogs (500 against 40)
    """

    largest: str
    most: int
    smallest: str
    least: int

    @property
    def ratio(self) -> float:
        """Images of the largest class for each one of the smallest."""
        return self.most / self.least

    def __str__(self) -> str:
        return (
            f"{self.largest} has {self.ratio:,.3g} times as many training images as {self.smallest} "
            f"({self.most:,} against {self.least:,})"
        )


def imbalance_of(classes: Sequence[str], counts: Sequence[int]) -> Imbalance | None:
    """Return the imbalance of classes; None below a ratio of :data:`WORTH_TELLING`, or with one class.

    Args:
        classes: their names.
        counts: images of each; classes without images don't count.
    """
    present = [place for place, count in enumerate(counts) if count]
    if not present:
        return None
    largest = max(present, key=lambda place: counts[place])
    smallest = min(present, key=lambda place: counts[place])
    found = Imbalance(classes[largest], counts[largest], classes[smallest], counts[smallest])
    return found if found.ratio >= WORTH_TELLING else None
