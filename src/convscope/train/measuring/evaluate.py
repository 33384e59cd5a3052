"""Loss and accuracy of a network in evaluation mode."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from convscope.train.config import TrainConfig
from convscope.train.feeding.batches import SeededImages, load_batches
from convscope.train.learning.precision import autocast, input_dtype
from convscope.train.measuring.scores import at_least_float32, scores_of, true_class_rank
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
    """

    loss: float
    accuracy: float
    top5: float | None


def evaluate(
    model: nn.Module, images: SeededImages, config: TrainConfig, accelerator: "Accelerator"
) -> Evaluation:
    """Return a network's loss and accuracy on a set, every image counted once, whatever the processes.

    Every module is in evaluation mode meanwhile, and in its own afterwards.

    Args:
        model: the network itself, not wrapped, on the accelerator's device.
        images: the set.
        config: batch size, precision and workers.
        accelerator: shares the images among its processes.
    """
    own = range(accelerator.process_index, len(images), accelerator.num_processes)
    batches = [
        list(own[start : start + config.batch_size]) for start in range(0, len(own), config.batch_size)
    ]
    totals = torch.zeros(3, dtype=torch.float64)
    num_scores = 0
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            for pixels, labels in load_batches(images, batches, config.num_workers, accelerator.device):
                with autocast(config, accelerator.device):
                    scores = scores_of(model(pixels.to(input_dtype(model))))
                num_scores = scores.shape[1]
                rank = true_class_rank(scores, labels)
                loss = F.cross_entropy(at_least_float32(scores), labels, reduction="sum")
                totals += torch.tensor(
                    [loss.item(), (rank < 1).sum().item(), (rank < 5).sum().item()], dtype=torch.float64
                )
    finally:
        for module, training in modes:
            module.training = training
    loss_sum, top1, top5 = (summed(totals, accelerator) / len(images)).tolist()
    return Evaluation(loss_sum, top1, top5 if num_scores > 5 else None)
