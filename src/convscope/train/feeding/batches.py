"""Images in batches: loading, seeding and checking them, in this process or in workers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from convscope.core.errors import ConvscopeError
from convscope.train.feeding.order import derived_seed, kept_generators, reseed


class Images(Protocol):
    """A sized, indexable set of ``(image, label)``: a float CHW tensor and a class number from 0."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        """Return an image and its class."""


class ImageSets(Protocol):
    """What training asks of its data; :class:`convscope.data.ImageData` is one."""

    @property
    def train(self) -> Images:
        """Images to learn from."""

    @property
    def validation(self) -> Images:
        """Images to measure on."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, by label."""

    @property
    def name(self) -> str:
        """Name of the data."""


Batch = tuple[Tensor, Tensor]
Augmentation = Callable[[Tensor, torch.Generator], Tensor]


class SeededImages(Dataset[Batch]):
    """Whole batches of images, whose random draws depend on the seed, the epoch and the image alone.

    Args:
        images: the set.
        split: ``"train"`` or ``"validation"``: part of the seed, and of messages.
        num_classes: labels are checked to be below it.
        seed: the run's seed.
        epoch: part of the seed, so that augmentation differs from epoch to epoch.
        augment: maps ``(1, C, H, W)`` and a generator to a random variation of the same shape.
    """

    def __init__(
        self,
        images: Images,
        split: str,
        num_classes: int,
        seed: int,
        epoch: int = 0,
        augment: Augmentation | None = None,
    ) -> None:
        self.images = images
        self.split = split
        self.num_classes = num_classes
        self.seed = seed
        self.epoch = epoch
        self.augment = augment

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: list[int]) -> Batch | ConvscopeError:
        """Return the images ``(N, C, H, W)`` and int64 labels ``(N,)`` of some indices.

        An error of ours is returned, not raised: a loading worker can't hand on an exception that takes
        three arguments.
        """
        try:
            with kept_generators():
                samples = [self._sample(index) for index in indices]
            self._check_same_shape(indices, samples)
        except ConvscopeError as error:
            return error
        return torch.stack([image for image, _ in samples]), torch.tensor([label for _, label in samples])

    def _sample(self, index: int) -> tuple[Tensor, int]:
        seed = derived_seed(self.seed, self.split, self.epoch, index)
        reseed(seed)
        image, label = self.images[index]
        if not isinstance(image, Tensor) or image.ndim != 3 or not image.is_floating_point():
            form = (
                f"{image.dtype} of shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image)
            )
            raise self._error(index, f"is {form}", "a floating point tensor (channels, height, width)")
        if not 0 <= int(label) < self.num_classes:
            raise self._error(index, f"has the label {label}", f"a label from 0 to {self.num_classes - 1}")
        if self.augment is not None:
            image = self.augment(image[None], torch.Generator().manual_seed(seed))[0]
        return image, int(label)

    def _check_same_shape(self, indices: list[int], samples: list[tuple[Tensor, int]]) -> None:
        first = samples[0][0].shape
        for index, (image, _) in zip(indices, samples):
            if image.shape != first:
                raise self._error(
                    index,
                    f"is {tuple(image.shape)} and image {indices[0]} is {tuple(first)}",
                    "images of one size",
                )

    def _error(self, index: int, problem: str, expected: str) -> ConvscopeError:
        return ConvscopeError(f"{self.split} image {index} {problem}", expected, "correct the data set")


def load_batches(
    images: SeededImages, batches: list[list[int]], num_workers: int, device: torch.device
) -> Iterator[Batch]:
    """Yield each batch on ``device``.

    Args:
        images: the set.
        batches: indices of each batch.
        num_workers: loading processes; 0: this one.
        device: where the batch goes.

    Raises:
        ConvscopeError: an image or label isn't as it should be.
    """
    loader: DataLoader[Any] = DataLoader(
        images,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        pin_memory=device.type == "cuda",
        # Without a generator of its own the loader would draw from the global one.
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, ConvscopeError):
            raise batch
        pixels, labels = batch
        yield pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def _as_it_is(batch: Any) -> Any:
    return batch
