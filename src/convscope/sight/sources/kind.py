"""Which kind of source is it? Told once, by what it offers and by its first item that can be read."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler

from convscope.core.errors import ConvscopeError
from convscope.sight.sources.items import Items, Numbered
from convscope.sight.sources.pictures import Pictures
from convscope.sight.sources.streams import Stream
from convscope.sight.sources.tensors import checked, not_images, tensor_in


def kind_of(source: Any) -> Numbered | Stream:
    """Return a source as something that gives an image for a number, or else one after the other.

    Raises:
        ConvscopeError: its items hold no tensors.
    """
    if isinstance(source, Pictures):
        return source
    if isinstance(source, Tensor):
        return Items(source)
    has_items = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    return Items(source) if has_items and _gives_images(source) else Stream(source)


def _gives_images(source: Any) -> bool:
    """Whether a list's or data set's items are single images rather than batches."""
    for index in range(len(source)):
        try:
            item = source[index]
        except Exception:  # damaged; it is named when it is read
            continue
        return tensor_in(item, index).dim() == 3
    return True


def _shuffles(loader: DataLoader[Any]) -> bool:
    """Whether a loader chooses an order itself; an iterable data set, such as webdataset's, has its own."""
    return not isinstance(loader.dataset, IterableDataset) and not isinstance(
        loader.sampler, SequentialSampler
    )


def check_source(source: Any) -> None:
    """Refuse what can't be looked at twice in the same order, before anything is run.

    Raises:
        ConvscopeError: it can be read only once, comes in random order, or isn't images.
    """
    if isinstance(source, Tensor):
        checked(source)
    elif isinstance(source, str | Path):
        raise ConvscopeError(
            f"pictures {str(source)!r} without their size and normalisation",
            "what the network takes",
            "give ImageSource.of_pictures(pictures, convscope.load(…).preprocessing)",
        )
    elif isinstance(source, Iterator):
        raise ConvscopeError(
            f"images from a {type(source).__name__}, which can be read only once",
            "a tensor, a Dataset, a list, or a loader: the winners are looked at a second time",
            "pass list(images) or the Dataset itself",
        )
    elif isinstance(source, DataLoader) and _shuffles(source):
        raise ConvscopeError(
            "images from a loader that shuffles", "the same order each time", "make it with shuffle=False"
        )
    elif not (isinstance(source, Pictures | Iterable) or hasattr(source, "__getitem__")):
        raise not_images(source, 0)
