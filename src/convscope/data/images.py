"""Images ready for a network: normalised tensors for it, bytes for people, the same batches every time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from convscope.core.errors import ConvscopeError
from convscope.data.augment import augmented
from convscope.data.cache import Cached, forecast_cache
from convscope.data.damage import Damage
from convscope.data.imbalance import Imbalance, imbalance_of
from convscope.data.normalisation import Normalisation
from convscope.data.pictures import Pictures, Pixels, evenly_spaced

Split = Literal["train", "validation", "all"]
Batches = DataLoader[Any]  # of (images, labels); PyTorch's annotation knows the items only

_EPOCHS = 1_000_003  # a prime, so that (seed, epoch) pairs in use don't meet


class ImageSet(Dataset[tuple[Tensor, int]]):
    """One split: item ``i`` is a normalised float32 image ``(c, h, w)`` and its class number.

    Args:
        pictures: where images come from.
        indices: which of them belong to the split.
        normalisation: how bytes become numbers.
    """

    def __init__(self, pictures: Pictures, indices: Sequence[int], normalisation: Normalisation) -> None:
        self.pictures = pictures
        self.indices = tuple(indices)
        self.normalisation = normalisation

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.normalisation(self.picture(index)), self.label(index)

    def picture(self, index: int) -> Pixels:
        """Return an image as people see it, uint8 ``(h, w, c)``."""
        return self.pictures.read(self.indices[index])

    def label(self, index: int) -> int:
        """Return an image's class number."""
        return self.pictures.labels[self.indices[index]]

    def class_counts(self, num_classes: int) -> tuple[int, ...]:
        """Return the number of images of each class."""
        counts = Counter(self.pictures.labels[index] for index in self.indices)
        return tuple(counts[label] for label in range(num_classes))

    def stacked(self, limit: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the images ``(n, c, h, w)`` and labels ``(n,)`` as tensors, evenly spaced if limited."""
        chosen = evenly_spaced(len(self), limit)
        if not chosen:
            raise ConvscopeError(
                "a split without images", "at least one", "give more images, or use split='all'"
            )
        images, labels = zip(*(self[index] for index in chosen), strict=True)
        return torch.stack(images), torch.tensor(labels)


@dataclass(frozen=True)
class ImageData:
    """A data set in two splits.

    Attributes:
        name: as the user wrote it.
        classes: names in the order of the class numbers.
        train: images to learn from.
        validation: images to judge by; may be empty where there are very few.
        normalisation: mean and deviation of the training images, which both splits are normalised with.
        size: height and width, in pixels.
        mirrors: whether a mirrored image still belongs to its class.
        damaged: files that were left out, with reasons.
        ignored: number of files that aren't pictures.
    """

    name: str
    classes: tuple[str, ...]
    train: ImageSet
    validation: ImageSet
    normalisation: Normalisation
    size: tuple[int, int]
    mirrors: bool = True
    damaged: tuple[Damage, ...] = ()
    ignored: int = 0

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over the training images, on a scale of 0 to 1."""
        return self.normalisation.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel over the training images, on a scale of 0 to 1."""
        return self.normalisation.std

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one image, ``(c, h, w)``."""
        return (len(self.mean), *self.size)

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Number of training images of each class."""
        return self.train.class_counts(len(self.classes))

    @property
    def imbalance(self) -> Imbalance | None:
        """How unequal the classes' training images are; None where it isn't worth telling."""
        return imbalance_of(self.classes, self.class_counts)

    def classes_without_images(self, split: Literal["train", "validation"]) -> tuple[str, ...]:
        """Return the classes that a split has no image of: they aren't learnt, or aren't judged."""
        counts = self.split(split).class_counts(len(self.classes))
        return tuple(name for name, count in zip(self.classes, counts, strict=True) if not count)

    def cached(self, cache: bool | Literal["auto"] = "auto") -> "ImageData":
        """Return the same data, whose pictures are decoded once and then kept in shared memory.

        Pixels are the same. ``"auto"`` keeps them if they fit in a quarter of the available memory and
        reading them costs more than copying (:func:`~convscope.data.forecast_cache` says by how much).

        Args:
            cache: whether to; False returns the data as they are.

        Raises:
            ConvscopeError: True was asked for, and there isn't so much shared memory, or the pictures vary;
                or it is none of these.
        """
        if cache not in (True, False, "auto"):
            raise ConvscopeError(f"cache={cache!r}", "True, False or 'auto'", "choose one")
        everything = self.split("all")
        if not cache or not len(everything):
            return self
        forecast = forecast_cache(everything.pictures, everything.indices)
        if cache == "auto" and not forecast.pays:
            return self
        if not forecast.steady:
            raise ConvscopeError(
                f"a cache of data set {self.name!r}, whose pictures differ each time they are read",
                "pictures that stay the same, as the first variation would be kept",
                "leave the cache off, or the random transforms out of the data set",
            )
        channels, height, width = self.input_shape
        shape, splits = (height, width, channels), (self.train, self.validation)
        if self.train.pictures is self.validation.pictures:
            kept = [Cached(self.train.pictures, shape, (*self.train.indices, *self.validation.indices))] * 2
        else:
            kept = [Cached(split.pictures, shape, split.indices) for split in splits]
        train, validation = (
            ImageSet(pictures, split.indices, split.normalisation)
            for pictures, split in zip(kept, splits, strict=True)
        )
        return replace(self, train=train, validation=validation)

    def split(self, name: Split) -> ImageSet:
        """Return a split; ``"all"`` is training and validation images together, if they share a source.

        Raises:
            ConvscopeError: there is no such split.
        """
        if name == "all":
            return ImageSet(_Joined(self.train, self.validation), range(self._num_images), self.normalisation)
        if name not in ("train", "validation"):
            raise ConvscopeError(f"split {name!r}", "train, validation or all", "choose one")
        return self.train if name == "train" else self.validation

    def normalised_with(self, mean: tuple[float, ...], std: tuple[float, ...]) -> "ImageData":
        """Return the same data, normalised as a network trained elsewhere wants it.

        Args:
            mean: of each channel, on a scale of 0 to 1.
            std: of each channel, on the same scale.

        Raises:
            ConvscopeError: the number of channels differs.
        """
        if not len(mean) == len(std) == len(self.mean):
            raise ConvscopeError(
                f"data set {self.name!r} of {len(self.mean)} channels normalised with {len(mean)} means",
                "one for each channel",
                "load the data with as many channels as the network takes",
            )
        normalisation = Normalisation(mean, std)
        train, validation = (
            ImageSet(split.pictures, split.indices, normalisation) for split in (self.train, self.validation)
        )
        return replace(self, train=train, validation=validation, normalisation=normalisation)

    def batches(
        self, split: Split, batch_size: int, *, seed: int = 0, epoch: int = 0, augment: bool = False
    ) -> Batches:
        """Return a loader of images ``(n, c, h, w)`` and labels ``(n,)``, the same for the same arguments.

        Training images come in another order each epoch, and only in full batches (a batch norm that sees
        a last batch of two would follow it), unless there are fewer than one batch. Other splits come in
        order and whole. The global generators aren't touched.

        Args:
            split: which images.
            batch_size: images a batch.
            seed: of order and variations.
            epoch: which epoch's order and variations; resuming asks for the epoch it stopped in.
            augment: whether to shift the images and, where the data allows it, to mirror them.

        Raises:
            ConvscopeError: there is no such split, or it is empty.
        """
        images = self.split(split)
        if not len(images) or batch_size < 1:
            raise ConvscopeError(
                f"data set {self.name!r}: {len(images)} images in split {split!r}, batch_size={batch_size}",
                "at least one image, and one a batch",
                "give more images, or use another split",
            )
        training = split == "train"
        generator = torch.Generator().manual_seed(seed * _EPOCHS + epoch)
        return DataLoader(
            images,
            batch_size,
            shuffle=training,
            drop_last=training and len(images) >= batch_size,
            generator=generator,
            collate_fn=_Collate(generator, self.mirrors) if augment else None,
        )

    @property
    def _num_images(self) -> int:
        return len(self.train) + len(self.validation)


def first_of_each_class(pictures: Pictures, indices: Sequence[int], per_class: int) -> list[int]:
    """Return the indices with at most so many pictures a class, those that come first."""
    counts: Counter[int] = Counter()
    kept = []
    for index in indices:
        counts[pictures.labels[index]] += 1
        if counts[pictures.labels[index]] <= per_class:
            kept.append(index)
    return kept


class _Collate:
    """Stacks a batch and varies it, with the loader's own generator."""

    def __init__(self, generator: torch.Generator, mirrors: bool) -> None:
        self.generator = generator
        self.mirrors = mirrors

    def __call__(self, items: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
        images, labels = zip(*items, strict=True)
        return augmented(torch.stack(images), self.generator, self.mirrors), torch.tensor(labels)


class _Joined:
    """Two sets one after the other."""

    def __init__(self, first: ImageSet, second: ImageSet) -> None:
        self._places = [(images, index) for images in (first, second) for index in range(len(images))]
        self.labels = tuple(images.label(index) for images, index in self._places)

    def read(self, index: int) -> Pixels:
        images, place = self._places[index]
        return images.picture(place)
