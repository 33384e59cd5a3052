"""Loss, accuracy and confusions of a network in evaluation mode."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.core.modes import in_evaluation_mode
from convscope.data.crops import ten_crops
from convscope.train.config import TrainConfig
from convscope.train.feeding.batches import SeededImages, load_batches
from convscope.train.feeding.variation import WINDOWS
from convscope.train.learning.precision import autocast, input_dtype
from convscope.train.measuring.confusion import Confusion
from convscope.train.measuring.scores import at_least_float32, predicted_class, scores_of, true_class_rank
from convscope.train.running.engine import summed

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Evaluation:
    """How a network did on a set of images.

    Attributes:
        loss: mean cross-entropy (nats), without label smoothing.
        accuracy: share of images whose class has the highest score.
        top5: share of images whose class is among the five highest scores; None for five scores or fewer.
        cells: ``(true, predicted, count)`` of the confusion table's cells above 0, sorted; ``predicted`` is
            -1 where an image has no predicted class (:attr:`Confusion.unanswered`).
    """

    loss: float
    accuracy: float
    top5: float | None
    cells: tuple[tuple[int, int, int], ...] = field(default=(), repr=False)

    def confusion(self, classes: tuple[str, ...], epoch: int | None = None) -> Confusion:
        """Return the confusion table, with the names of its classes."""
        return Confusion(
            classes=classes,
            counts=tuple(cell for cell in self.cells if cell[1] >= 0),
            unanswered=tuple((true, count) for true, predicted, count in self.cells if predicted < 0),
            epoch=epoch,
        )


def evaluate(
    model: nn.Module, images: SeededImages, config: TrainConfig, accelerator: "Accelerator"
) -> Evaluation:
    """Return how a network does on a set, every image counted once, whatever the processes.

    With ``evaluation="ten-crop"`` an image's class probabilities are the mean of those of its ten windows
    (five, of data that can't be mirrored), and its loss is that mean's. A pass takes as many images, or
    windows, as a micro-batch of the training, so that it needs no more memory.

    Every module is in evaluation mode meanwhile, and in its own afterwards.

    Args:
        model: the network itself, not wrapped, on the accelerator's device.
        images: the set.
        config: batch size, windows, precision and workers.
        accelerator: shares the images among its processes.

    Source: ten crops: Krizhevsky et al. 2012, section 4.1; Zeiler and Fergus 2013, section 3.1.
    """
    own = range(accelerator.process_index, len(images), accelerator.num_processes)
    size = config.micro_batch_size
    batches = [list(own[start : start + size]) for start in range(0, len(own), size)]
    totals = torch.zeros(3, dtype=torch.float64)
    pairs: list[Tensor] = []
    num_scores = 0
    with in_evaluation_mode(model), torch.no_grad():
        for pixels, labels in load_batches(images, batches, config.num_workers, accelerator.device):
            scores = torch.cat(list(_scores(model, pixels, images.mirrors, config, accelerator.device)))
            num_scores = scores.shape[1]
            rank = true_class_rank(scores, labels)
            loss = F.cross_entropy(scores, labels, reduction="sum")
            right = [(rank < 1).sum().item(), (rank < 5).sum().item()]
            totals += torch.tensor([loss.item(), *right], dtype=torch.float64)
            pairs.append(torch.stack([labels, predicted_class(scores, images.num_classes)], dim=1).cpu())
    loss_sum, top1, top5 = (summed(totals, accelerator) / len(images)).tolist()
    cells = _counted(pairs, len(images), accelerator)
    return Evaluation(loss_sum, top1, top5 if num_scores > 5 else None, cells)


def _scores(
    model: nn.Module, pixels: Tensor, mirrors: bool, config: TrainConfig, device: torch.device
) -> Iterator[Tensor]:
    """Scores ``(n, K)`` of a batch, piece by piece; of ten windows, the log of their mean probabilities."""
    if config.evaluation != "ten-crop" or config.crop is None:
        yield _forward(model, pixels, config, device)
        return
    num_windows = WINDOWS if mirrors else WINDOWS // 2
    for piece in torch.split(pixels, max(1, config.micro_batch_size // num_windows)):
        windows = ten_crops(piece, config.crop)[:, :num_windows].flatten(0, 1)
        parts = [
            F.log_softmax(_forward(model, part, config, device), 1)
            for part in torch.split(windows, config.micro_batch_size)
        ]
        log_probabilities = torch.cat(parts).view(len(piece), num_windows, -1)
        yield log_probabilities.logsumexp(1) - math.log(num_windows)


def _forward(model: nn.Module, pixels: Tensor, config: TrainConfig, device: torch.device) -> Tensor:
    with autocast(config, device):
        scores = scores_of(model(pixels.to(input_dtype(model))))
    return at_least_float32(scores)


def _counted(
    pairs: list[Tensor], num_images: int, accelerator: "Accelerator"
) -> tuple[tuple[int, int, int], ...]:
    """How often each (true, predicted) pair occurs in all processes; of the same on each of them."""
    own = torch.cat(pairs) if pairs else torch.zeros(0, 2, dtype=torch.int64)
    if accelerator.num_processes > 1:
        # Shares differ by at most one image; all must be of one length to be gathered.
        padded = torch.full((-(-num_images // accelerator.num_processes), 2), -1)
        padded[: len(own)] = own
        own = accelerator.gather(padded.to(accelerator.device)).cpu()
    counts = Counter((true, predicted) for true, predicted in own.tolist() if true >= 0)
    return tuple((true, predicted, count) for (true, predicted), count in sorted(counts.items()))
