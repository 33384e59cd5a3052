"""The images that units are looked at with: any source, read in batches, as often as needed.

Answers: which pixels does the network get, how are they shown, and what are they called?

Limits: all images of a set have one size, since the network's maps are compared across them.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, SequentialSampler

from convscope.core.errors import ConvscopeError
from convscope.data.images import ImageData, ImageSet

Source = Any
"""A tensor (n, c, h, w); a Dataset or list of tensors (c, h, w), alone or first in a tuple; or something
that can be iterated over again and again, such as a DataLoader, and yields such tensors or batches."""


@dataclass(frozen=True)
class ImageSource:
    """Images as the network takes them, with what it needs to show them.

    Args:
        source: see :data:`Source`.
        mean, std: a pixel is shown as ``x · std + mean``, in [0, 1]; None: every patch is stretched between
            its own smallest and largest value.
        names: of the images, in order; file names, say.
        batch_size: how many images the network gets at once (a loader has its own).

    Example:
        >>> source = ImageSource(torch.zeros(3, 1, 4, 5), batch_size=2)
        >>> [(indices, tuple(batch.shape)) for indices, batch in source.batches()]
        [([0, 1], (2, 1, 4, 5)), ([2], (1, 1, 4, 5))]
    """

    source: Source
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    names: Sequence[str] | None = None
    batch_size: int = 32

    def batches(self, wanted: Collection[int] | None = None) -> Iterator[tuple[list[int], Tensor]]:
        """Yield the indices and the tensor (n, c, h, w) of batch after batch, in ascending order.

        Args:
            wanted: indices of the images to yield; None for all of them.

        Raises:
            ConvscopeError: there are no images, not of the kinds that :data:`Source` lists, or with NaN or
                infinite values.
        """
        if _has_items(self.source):
            found = self._by_index(range(len(self.source)) if wanted is None else sorted(wanted))
        else:
            found = self._by_iteration(None if wanted is None else set(wanted))
        for indices, batch in found:
            for row in (~batch.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()[:1]:
                name = self.name(indices[row])
                raise not_finite(f"image {indices[row]}" + (f" ({name})" if name else ""))
            yield indices, batch

    def sample(self) -> Float[Tensor, "2 c h w"]:
        """Return the first image twice, as a batch to record the network with.

        Raises:
            ConvscopeError: there is none.
        """
        wanted = [0] if _has_items(self.source) and len(self.source) else None
        return next(iter(self.batches(wanted)))[1][:1].repeat(2, 1, 1, 1)

    def spread(self, count: int) -> frozenset[int]:
        """Return the indices of up to ``count`` images, evenly spaced; the first ones of a loader."""
        if not _has_items(self.source):
            return frozenset(range(count))
        length = len(self.source)
        return (
            frozenset(index * length // count for index in range(count))
            if length > count
            else frozenset(range(length))
        )

    def name(self, index: int) -> str:
        """Return the name of an image, or an empty text."""
        return str(self.names[index]) if self.names is not None and index < len(self.names) else ""

    def shown(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return pixels (c, h, w) as colours from 0 to 1."""
        if self.mean is not None and self.std is not None:
            mean, std = (np.array(v, np.float32)[:, None, None] for v in (self.mean, self.std))
            shown: NDArray[np.float32] = np.clip(pixels * std + mean, 0, 1)
            return shown
        low, high = float(pixels.min()), float(pixels.max())
        return (pixels - low) / max(high - low, 1e-12)

    @property
    def display(self) -> str:
        """How :meth:`shown` makes colours."""
        stated = self.mean is not None and self.std is not None
        return "x · std + mean" if stated else "each patch stretched from its minimum to its maximum"

    def _by_index(self, indices: Sequence[int]) -> Iterator[tuple[list[int], Tensor]]:
        if not len(self.source):
            raise _no_images()
        for start in range(0, len(indices), self.batch_size):
            chunk = list(indices[start : start + self.batch_size])
            if isinstance(self.source, Tensor):
                yield chunk, _checked(self.source[chunk], chunk[0])
            else:
                yield chunk, _stacked([_pixels(self.source[index], index, 3) for index in chunk], chunk)

    def _by_iteration(self, wanted: set[int] | None) -> Iterator[tuple[list[int], Tensor]]:
        position = 0
        for item in self.source:
            batch = _pixels(item, position, 3, 4)
            batch = batch if batch.dim() == 4 else batch[None]
            indices = range(position, position + len(batch))
            kept = [index for index in indices if wanted is None or index in wanted]
            if kept:
                yield kept, batch[[index - position for index in kept]]
            position += len(batch)
        if position == 0:
            raise _no_images()


def image_source(images: "ImageSource | Source") -> ImageSource:
    """Return the images as an :class:`ImageSource`.

    Args:
        images: one already, any :data:`Source`, or a data set of :mod:`convscope.data`: one of its splits, or
            the whole, of which the validation images are taken (the training images if there are none).

    Raises:
        ConvscopeError: they can be read only once, come in random order, or aren't images.
    """
    images = _wrapped(images)
    source = images.source
    if isinstance(source, Tensor):
        _checked(source, 0)
    elif isinstance(source, Iterator):
        raise ConvscopeError(
            f"images from a {type(source).__name__}, which can be read only once",
            "a tensor, a Dataset, a list, or a loader: the winners are looked at a second time",
            "pass list(images) or the Dataset itself",
        )
    elif isinstance(source, DataLoader) and not isinstance(source.sampler, SequentialSampler):
        raise ConvscopeError(
            "images from a loader that shuffles", "the same order each time", "make it with shuffle=False"
        )
    elif not (hasattr(source, "__getitem__") or isinstance(source, Iterable)):
        raise _not_images(source, 0)
    return images


def _wrapped(images: "ImageSource | Source") -> ImageSource:
    if isinstance(images, ImageSource):
        return images
    if isinstance(images, ImageData):
        images = images.validation if len(images.validation) else images.train
    if isinstance(images, ImageSet):
        return ImageSource(images, images.normalisation.mean, images.normalisation.std)
    return ImageSource(images)


def _has_items(source: Source) -> bool:
    """Whether single images can be had by index."""
    if isinstance(source, Tensor):
        return True
    if not (hasattr(source, "__getitem__") and hasattr(source, "__len__")):
        return False
    return not len(source) or _tensor_in(source[0]).dim() == 3


def _pixels(item: Any, index: int, *dims: int) -> Tensor:
    tensor = _tensor_in(item)
    if tensor.dim() not in dims or not tensor.is_floating_point() or tensor.is_meta:
        raise _not_images(tensor, index)
    return tensor


def _tensor_in(item: Any) -> Tensor:
    first = next((leaf for leaf in tree_leaves(item) if isinstance(leaf, Tensor)), None)
    if first is None:
        raise _not_images(item, 0)
    return first


def _checked(batch: Tensor, index: int) -> Tensor:
    if batch.dim() != 4 or not batch.is_floating_point() or batch.is_meta:
        raise _not_images(batch, index)
    if not len(batch):
        raise _no_images()
    return batch


def _stacked(images: list[Tensor], indices: list[int]) -> Tensor:
    for image, index in zip(images, indices, strict=True):
        if image.shape != images[0].shape:
            raise ConvscopeError(
                f"image {index} of shape {tuple(image.shape)} beside one of {tuple(images[0].shape)}",
                "images of one size",
                "resize or crop them to the network's input size",
            )
    return torch.stack(images)


def _not_images(given: Any, index: int) -> ConvscopeError:
    is_tensor = isinstance(given, Tensor)
    described = (
        f"{given.dtype} of shape {tuple(given.shape)} on {given.device}"
        if is_tensor
        else type(given).__name__
    )
    return ConvscopeError(
        f"image {index} is a {described}",
        "floating-point tensors (channels, height, width), normalised for the network",
        "convert them, and add a batch dimension to a tensor of images",
    )


def not_finite(image: str) -> ConvscopeError:
    """Return the error for an image that holds NaN or infinite values."""
    return ConvscopeError(
        f"{image} with NaN or infinite values", "finite pixels", "clean the data or leave the image out"
    )


def _no_images() -> ConvscopeError:
    return ConvscopeError("no images", "at least one image", "check the folder or data set")
