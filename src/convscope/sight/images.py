"""The images that units are looked at with: any source, read in batches, as often as needed.

Answers: which pixels does the network get, how are they shown, and what are they called?

Limits: all images of a set have one size, since the network's maps are compared across them.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.data import Damage, ImageData, ImageSet, list_pictures
from convscope.data.ahead import default_threads
from convscope.data.damage import all_damaged
from convscope.data.pictures import evenly_spaced
from convscope.networks import Preprocessing
from convscope.sight.sources.batches import numbered_batches
from convscope.sight.sources.items import Numbered, attempt
from convscope.sight.sources.kind import check_source, kind_of
from convscope.sight.sources.pictures import Pictures
from convscope.sight.sources.streams import Stream
from convscope.sight.sources.tensors import not_finite as not_finite

Source = Any
"""A tensor (n, c, h, w); a Dataset or list of tensors (c, h, w), alone or first in a tuple; or something
that can be iterated over again and again, such as a DataLoader, and yields such tensors or batches. For
pictures in files: :meth:`ImageSource.of_pictures`."""


@dataclass(frozen=True)
class ImageSource:
    """Images as the network takes them, with what it needs to show them.

    An image that can't be read (a damaged file, or an exception of the Dataset) is named in :attr:`damaged`
    and left out; its batch is shorter, and all other images keep their numbers and their batches.

    Args:
        source: see :data:`Source`.
        mean, std: a pixel is shown as ``x · std + mean``, in [0, 1]; None: every patch is stretched between
            its own smallest and largest value.
        names: of the images, in order; file names, say.
        batch_size: how many images the network gets at once (a loader has its own).

    Attributes:
        met: what couldn't be read so far, by the image's number.

    Example:
        >>> import torch
        >>> source = ImageSource(torch.zeros(3, 1, 4, 5), batch_size=2)
        >>> [(indices, tuple(batch.shape)) for indices, batch in source.batches()]
        [([0, 1], (2, 1, 4, 5)), ([2], (1, 1, 4, 5))]
    """

    source: Source
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    names: Sequence[str] | None = None
    batch_size: int = 32
    met: dict[int, Damage] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise ConvscopeError(
                f"batch_size={self.batch_size!r}", "a whole number from 1", "32 suits most networks"
            )

    @classmethod
    def of_pictures(
        cls,
        pictures: Any,
        preprocessing: Preprocessing,
        *,
        limit: int | None = None,
        batch_size: int = 32,
        threads: int | None = None,
    ) -> "ImageSource":
        """Return the pictures of a folder, of tar files or of a Hugging Face data set, ready for a network.

        No picture is opened before its batch is read. Threads then decode up to two batches ahead of the
        network, in order.

        Args:
            pictures: see :func:`convscope.data.list_pictures`.
            preprocessing: size, mean and deviation: ``convscope.load(…).preprocessing``, or a
                :class:`~convscope.networks.Preprocessing` of your own.
            limit: so many pictures at most, evenly spaced; None: all.
            batch_size: how many images the network gets at once.
            threads: how many decode; None: as many as there are processors for this process.

        Raises:
            ConvscopeError: there is no such folder or file, there are no pictures in it, or the network
                takes neither 1 nor 3 channels.

        Example:
            >>> import tempfile, convscope as cs
            >>> from PIL import Image
            >>> folder = tempfile.mkdtemp()
            >>> Image.new("RGB", (60, 40), "red").save(folder + "/red.png")
            >>> prepare = cs.networks.Preprocessing((32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
            >>> source = ImageSource.of_pictures(folder, prepare)
            >>> [(source.name(i), tuple(batch.shape)) for (i,), batch in source.batches()]
            [('red.png', (1, 3, 32, 32))]
        """
        for what, given in (("limit", limit), ("threads", threads)):
            if given is not None and (not isinstance(given, int) or given < 1):
                raise ConvscopeError(f"{what}={given!r}", "a whole number from 1, or None", "correct it")
        if not isinstance(preprocessing, Preprocessing):
            raise ConvscopeError(
                f"preprocessing of type {type(preprocessing).__name__}",
                "a Preprocessing: size, mean and deviation",
                "pass cs.load(…).preprocessing, or cs.networks.Preprocessing((224, 224), mean, std)",
            )
        listing = list_pictures(pictures)
        count = len(listing)
        places = range(count) if limit is None or limit >= count else evenly_spaced(count, limit)
        return cls(
            Pictures(listing, preprocessing, places, default_threads() if threads is None else threads),
            preprocessing.mean,
            preprocessing.std,
            batch_size=batch_size,
        )

    @property
    def length(self) -> int | None:
        """How many images there are, damaged ones included; None for a loader, which must be read to know."""
        return None if isinstance(self._kind, Stream) else len(self._kind)

    @property
    def damaged(self) -> list[Damage]:
        """What was left out so far, and why: found when listing, then by the images' numbers."""
        listed = self.source.listing.damaged if isinstance(self.source, Pictures) else ()
        return [*listed, *(self.met[index] for index in sorted(self.met))]

    def batches(self, wanted: Collection[int] | None = None) -> Iterator[tuple[list[int], Tensor]]:
        """Yield the indices and the tensor (n, c, h, w) of batch after batch, in ascending order.

        The numbers are divided into batches before anything is read. If ``wanted`` consists of whole
        batches of the full division, its batches are the same.

        Args:
            wanted: indices of the images to yield; None for all of them.

        Raises:
            ConvscopeError: there are no images, none can be read, they are not of the kinds that
                :data:`Source` lists, or hold NaN or infinite values.
        """
        kind = self._kind
        found = (
            kind.batches(wanted)
            if isinstance(kind, Stream)
            else numbered_batches(kind, wanted, self.batch_size, self.met)
        )
        with closing(found):
            for indices, batch in found:
                # A sum of finite numbers may overflow; one of others is never finite.
                suspect = batch if not batch.sum().isfinite() else batch[:0]
                for row in (~suspect.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()[:1]:
                    name = self.name(indices[row])
                    raise not_finite(f"image {indices[row]}" + (f" ({name})" if name else ""))
                yield indices, batch

    def sample(self) -> Float[Tensor, "2 c h w"]:
        """Return the first image that can be read twice, as a batch to record the network with.

        Raises:
            ConvscopeError: there is none.
        """
        wanted: list[int] | None = None
        if not isinstance(self._kind, Stream) and len(self._kind):
            found = (index for index in range(len(self._kind)) if self._read(self._kind, index) is not None)
            wanted = [next(found, 0)]
        for _, batch in self.batches(wanted):
            return batch[:1].repeat(2, 1, 1, 1)
        raise all_damaged("images" if isinstance(self._kind, Stream) else self._kind.title, self.damaged)

    def spread(self, count: int) -> frozenset[int]:
        """Return the indices of up to ``count`` images, evenly spaced; the first ones of a loader."""
        length = self.length
        if length is None:
            return frozenset(range(count))
        return (
            frozenset(index * length // count for index in range(count))
            if length > count
            else frozenset(range(length))
        )

    def name(self, index: int) -> str:
        """Return the name of an image, or an empty text.

        Of a picture: its path below the folder, ``shard.tar/member.jpg``, or the row.
        """
        if self.names is not None:
            return str(self.names[index]) if index < len(self.names) else ""
        return "" if isinstance(self._kind, Stream) else self._kind.name(index)

    def label(self, index: int) -> str:
        """Return the name of a picture's class; empty where nobody says."""
        return "" if isinstance(self._kind, Stream) else self._kind.label(index)

    def fingerprint(self) -> str:
        """Return a hash by which the same images are known again: cheap, and no proof.

        Of pictures: names, sizes and preprocessing; of a tensor, list or data set: the number of images, and
        the values of 16; of a loader: its first batch.
        """
        return self._kind.fingerprint()

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

    @cached_property
    def _kind(self) -> Numbered | Stream:
        """The source, asked as its kind can be."""
        return kind_of(self.source)

    def _read(self, kind: Numbered, index: int) -> Tensor | None:
        found = attempt(kind, index)
        if isinstance(found, Damage):
            self.met[index] = found
            return None
        return found


def image_source(images: "ImageSource | Source") -> ImageSource:
    """Return the images as an :class:`ImageSource`.

    Args:
        images: one already, any :data:`Source`, or a data set of :mod:`convscope.data`: one of its splits, or
            the whole, of which the validation images are taken (the training images if there are none).

    Raises:
        ConvscopeError: they can be read only once, come in random order, or aren't images.
    """
    images = _wrapped(images)
    check_source(images.source)
    return images


def _wrapped(images: "ImageSource | Source") -> ImageSource:
    if isinstance(images, ImageSource):
        return images
    if isinstance(images, ImageData):
        images = images.validation if len(images.validation) else images.train
    if isinstance(images, ImageSet):
        return ImageSource(images, images.normalisation.mean, images.normalisation.std)
    return ImageSource(images)
