"""A data set of labelled pictures, read as the command line does: training images, in shuffled batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

BATCH = 32
"""Images a batch, as on the command line."""

_OF_DATA_SETS = ("train", "validation", "classes")


@dataclass(frozen=True)
class ImageBatches:
    """Batches of a data set in splits.

    Attributes:
        batches: a loader of images and labels.
        num_classes: of the data; None for pictures without classes, of which there are no labels.
    """

    batches: Any
    num_classes: int | None

    def __iter__(self) -> Iterator[Any]:
        for images, labels in self.batches:
            yield images if self.num_classes is None else (images, labels)

    def __len__(self) -> int:
        return len(self.batches)


def as_batches(data: Any) -> Any:
    """Return the batches of a data set in splits, such as :func:`convscope.data.load_data` gives; else data.

    Args:
        data: in any form; a data set is what has ``train``, ``validation``, ``classes`` and
            ``batches(split, batch_size)``.

    Raises:
        ConvscopeError: there is no training image.
    """
    is_set = all(hasattr(data, name) for name in _OF_DATA_SETS) and callable(getattr(data, "batches", None))
    if not is_set or isinstance(data, type):
        return data
    number = len(data.classes)
    return ImageBatches(data.batches("train", BATCH), number if number > 1 else None)


def num_classes_of(data: Any) -> int | None:
    """Return how many classes data says that it has; None if it doesn't."""
    number = getattr(data, "num_classes", None)
    return number if type(number) is int and number > 1 else None
