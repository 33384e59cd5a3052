"""Images in batches: loading, seeding and checking them, in this process or in workers."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from convscope.core.errors import ConvscopeError
from convscope.core.seeds import derived_seed
from convscope.train.feeding.order import kept_generators, reseed
from convscope.train.feeding.workers import Workers, batch_loader


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


class LoadersGoneError(ConvscopeError):
    """A process that loads images has died."""


Augmentation = Callable[[Tensor, torch.Generator], Tensor]


class SeededImages(Dataset[Batch]):
    """Whole batches of images, whose random draws depend on the seed, the epoch and the image alone.

    Args:
        images: the set.
        split: ``"train"`` or ``"validation"``: part of the seed, and of messages.
        num_classes: labels are checked to be below it.
        seed: the run's seed.
        epoch: part of the seed, so that augmentation differs from epoch to epoch.
        augment: maps ``(1, C, H, W)`` and a generator to a variation, which may be smaller.

    Attributes:
        mirrors: whether a mirrored image still belongs to its class.
        workers: loading processes that stay from epoch to epoch; None: each iteration starts its own.
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
        self.mirrors = True
        self.workers: Workers | None = None

    def at(self, epoch: int) -> "SeededImages":
        """Return the same images as of another epoch."""
        images = copy.copy(self)
        images.epoch = epoch
        return images

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
        image, label = self._read(index)
        if not isinstance(image, Tensor) or image.ndim != 3 or not image.is_floating_point():
            form = (
                f"{image.dtype} of shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image)
            )
            raise self._error(index, f"is {form}", "a floating point tensor (channels, height, width)")
        number = _whole(label)
        if number is None or not 0 <= number < self.num_classes:
            shown = " ".join(str(label).split())[:60]
            raise self._error(
                index, f"has the label {shown}", f"a whole number from 0 to {self.num_classes - 1}"
            )
        if self.augment is not None:
            self._check_large_enough(index, image)
            image = self.augment(image[None], torch.Generator().manual_seed(seed))[0]
        return image, number

    def _read(self, index: int) -> tuple[Tensor, int]:
        try:
            return self.images[index]
        except ConvscopeError:
            raise
        except Exception as error:  # a data set of the user's may raise anything
            reason = f"{type(error).__name__}: {error}".strip().split("\n")[0]
            raise self._error(index, f"can't be read ({reason})", "an image and its label") from error

    def _check_large_enough(self, index: int, image: Tensor) -> None:
        side = getattr(self.augment, "crop", None)
        if side is not None and min(image.shape[1:]) < side:
            raise ConvscopeError(
                f"{self.split} image {index} of {image.shape[1]}×{image.shape[2]} pixels with crop={side}",
                f"images of at least {side}×{side}",
                "load them larger, such as 256 for crop=224, or make crop smaller",
            )

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


def _whole(label: Any) -> int | None:
    """A label as a whole number; None where it isn't one."""
    try:
        number = int(label)
        return number if not isinstance(label, str) and bool(number == label) else None
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def load_batches(
    images: SeededImages, batches: list[list[int]], num_workers: int, device: torch.device
) -> Iterator[Batch]:
    """Yield each batch on ``device``.

    Args:
        images: the set.
        batches: indices of each batch.
        num_workers: loading processes; 0: this one. The batches don't depend on it.
        device: where the batch goes.

    Raises:
        ConvscopeError: an image or label isn't as it should be, or a loading process died.
    """
    pinned = device.type == "cuda"
    if images.workers is not None and num_workers > 0:
        requests = [(images.split, images.epoch, indices) for indices in batches]
        loaded = images.workers.load(requests, num_workers, pinned)
    else:
        loaded = iter(batch_loader(images, batches, num_workers, pinned))
    while (batch := _next(loaded)) is not None:
        if isinstance(batch, ConvscopeError):
            # Let the processes end now: left to the garbage collector, each takes five seconds.
            del loaded
            try:
                raise batch
            finally:
                del batch
        pixels, labels = batch
        yield pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def _next(loaded: Iterator[Any]) -> Any:
    """The next batch; None after the last one."""
    try:
        return next(loaded, None)
    except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
        # The last three: it died while it handed over a batch. A data set's own errors don't come this far.
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise LoadersGoneError(
            "a loading process that died (out of memory, or of shared memory in /dev/shm, or killed)",
            "processes that can load images",
            "take fewer of them: num_workers=0 (--num-workers 0) loads in the training process itself",
        ) from error
