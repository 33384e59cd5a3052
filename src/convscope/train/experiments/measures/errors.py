"""How far a network does better on the images that it was trained on: the generalisation gap.

Both splits are measured alike, in evaluation mode, without augmentation. The loss that training reports is
another thing: it is of batches on the way, in training mode, with dropout and batch statistics.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.core.preserved import preserved
from convscope.data import ImageSet
from convscope.train.measuring.scores import scores_of, true_class_rank

_BATCH = 100


@dataclass(frozen=True)
class Errors:
    """What a network does on a set of images in evaluation mode.

    Attributes:
        loss: mean cross-entropy, in nats.
        error: share of images whose class doesn't have the highest score, 0 to 1.
    """

    loss: float
    error: float


def errors_on(model: nn.Module, images: ImageSet) -> Errors:
    """Return a network's loss and error on a set of images, in evaluation mode; it stays as it is.

    Args:
        model: maps float32 images ``(n, c, h, w)`` to scores ``(n, classes)``.
        images: float32 images and int64 labels.

    Example:
        >>> from convscope.data import load_data
        >>> guess = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> _ = nn.init.zeros_(guess[1].weight), nn.init.zeros_(guess[1].bias)
        >>> round(errors_on(guess, load_data("digits", size=8, channels=1).validation).loss, 3)
        2.303
    """
    loss = wrong = 0.0
    with preserved(model), torch.no_grad():
        model.eval()
        for pixels, labels in in_batches(images):
            scores = scores_of(model(pixels))
            loss += F.cross_entropy(scores, labels, reduction="sum").item()
            wrong += (true_class_rank(scores, labels) > 0).sum().item()
    return Errors(loss / len(images), wrong / len(images))


def gap(model: nn.Module, train: ImageSet, validation: ImageSet) -> dict[str, float]:
    """Return loss and error on both splits, and how much larger they are on the second, by name."""
    own, other = errors_on(model, train), errors_on(model, validation)
    return {
        "training loss": own.loss,
        "training error": own.error,
        "validation loss": other.loss,
        "validation error": other.error,
        "loss gap": other.loss - own.loss,
        "error gap": other.error - own.error,
    }


def in_batches(images: ImageSet, size: int = _BATCH) -> Iterable[tuple[Tensor, Tensor]]:
    """Yield images ``(n, c, h, w)`` and labels ``(n,)`` in order, ``size`` at a time."""
    for start in range(0, len(images), size):
        pairs = [images[index] for index in range(start, min(start + size, len(images)))]
        pixels, labels = zip(*pairs, strict=True)
        yield torch.stack(pixels), torch.tensor(labels)
