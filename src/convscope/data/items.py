"""Data sets of PyTorch's kind, torchvision's among them: items of an image and a class number.

An image may be a PIL picture, an array uint8 ``(h, w)`` or ``(h, w, c)``, or a tensor, uint8 or from 0 to 1,
``(c, h, w)`` or ``(h, w)``. Limits: data sets with a length and numbered items, not streams. Transforms that
they have are applied each time, so they should leave out normalisation, and random ones unless that is meant.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.data.opening import labelled_pictures, opened
from convscope.data.pictures import Pixels, as_rgb
from convscope.data.splits import Labelled, Wish

_IMAGE_KEYS, _LABEL_KEYS = ("image", "img", "pixel_values"), ("label", "labels", "target")


def is_item_set(given: Any) -> bool:
    """Whether something has numbered items, as a data set does; texts don't count."""
    return hasattr(given, "__getitem__") and not isinstance(given, str | bytes | dict | list | tuple)


def item_pictures(items: Any, wish: Wish, name: str, threads: int = 0) -> Labelled:
    """Return the pictures of a data set, each of which was read once.

    Args:
        items: item ``i`` is ``(image, label)``, more after it being ignored, or a dict with ``image`` and
            ``label``. Its ``classes``, if it has them, are the classes' names.
        wish: how they are fitted.
        name: for messages, such as ``"CIFAR10, training"``.
        threads: that read while it is opened; 0 if it mayn't be read by several.

    Raises:
        ConvscopeError: it has no length, no labels or no whole picture, or isn't of images.
    """
    if not hasattr(items, "__len__"):
        raise ConvscopeError(
            f"{name}: a {type(items).__name__} without a length",
            "a data set whose items are numbered",
            "pass one that isn't a stream",
        )
    source = _Items(items, name)
    found = opened(source.check, len(items), class_names(items), name, threads)
    return labelled_pictures(source.read, found, wish, name)


def class_names(items: Any) -> tuple[str, ...] | None:
    """Return the names that a data set gives its classes, each different; None if it gives none.

    Of several names for one class, as ImageNet has them, all are joined; names that occur twice, as
    ImageNet's "crane", get their numbers behind them.
    """
    names = getattr(items, "classes", None)
    if not isinstance(names, list | tuple) or not names:
        return None
    texts = [", ".join(map(str, each)) if isinstance(each, tuple) else str(each) for each in names]
    counts = Counter(texts)
    return tuple(text if counts[text] == 1 else f"{text} ({number})" for number, text in enumerate(texts))


def as_pixels(image: Any) -> Pixels:
    """Return an image of any accepted kind, uint8 ``(h, w, 3)`` or ``(h, w, 1)``.

    Raises:
        ConvscopeError: it is of another kind or shape, or its numbers aren't from 0 to 1.
    """
    if isinstance(image, Image.Image):
        return np.array(as_rgb(ImageOps.exif_transpose(image)))
    if isinstance(image, Tensor):
        whole = image.detach().cpu()
        return _checked(_as_bytes(whole[None] if whole.ndim == 2 else whole).permute(1, 2, 0).numpy())
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        return _checked(image[..., None] if image.ndim == 2 else image)
    raise _wrong(f"a {getattr(image, 'dtype', type(image).__name__)}")


class _Items:
    """Reads items; its methods go to loading processes."""

    def __init__(self, items: Any, name: str) -> None:
        self._items = items
        self._name = name

    def read(self, index: int) -> Pixels:
        return as_pixels(self._image_and_label(index)[0])

    def check(self, index: int) -> Any:
        image, label = self._image_and_label(index)
        try:
            as_pixels(image)
        except ConvscopeError as error:
            raise ConvscopeError(
                f"{self._name}, item {index}: {error.given}", error.expected, error.action
            ) from error
        is_array = isinstance(label, Tensor | np.ndarray)
        return label.item() if is_array and math.prod(label.shape) == 1 else label

    def _image_and_label(self, index: int) -> tuple[Any, Any]:
        item = self._items[index]
        if isinstance(item, dict):
            image, label = (_first(item, keys) for keys in (_IMAGE_KEYS, _LABEL_KEYS))
        elif isinstance(item, Sequence) and len(item) >= 2:
            image, label = item[0], item[1]
        else:
            raise ConvscopeError(
                f"{self._name}, item {index}: a {type(item).__name__} without a label",
                "an image and its class number",
                "pass a labelled data set",
            )
        return image, label


def _first(item: dict[str, Any], keys: tuple[str, ...]) -> Any:
    found = next((key for key in keys if key in item), None)
    if found is None:
        raise ConvscopeError(
            f"an item with {', '.join(map(str, item))}", f"one with {' or '.join(keys)}", "rename its parts"
        )
    return item[found]


def _as_bytes(image_CHW: Tensor) -> Tensor:
    if image_CHW.dtype == torch.uint8:
        return image_CHW
    if not image_CHW.is_floating_point():
        raise _wrong(f"a tensor of {image_CHW.dtype}")
    low, high = (float(edge) for edge in image_CHW.aminmax())
    if not (low >= 0 and high <= 1):
        raise ConvscopeError(
            f"an image with values from {low:.3g} to {high:.3g}",
            "0 to 1, or bytes",
            "leave Normalize out of the data set's transform: it is normalised here",
        )
    return image_CHW.mul(255).round().to(torch.uint8)


def _checked(pixels: Any) -> Pixels:
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        raise _wrong(f"an image of shape {pixels.shape} (height, width, channels)")
    return np.ascontiguousarray(pixels)


def _wrong(what: str) -> ConvscopeError:
    return ConvscopeError(
        what, "a PIL picture, or uint8 or 0 to 1 of 1 or 3 channels", "correct the data set or its transform"
    )
