"""One optimizer step: forward, loss and backward of each micro-batch, then the update."""

import torch
from torch import Tensor
from torch.nn import functional as F

from convscope.train.learning.learner import Learner
from convscope.train.learning.precision import autocast, input_dtype
from convscope.train.measuring.scores import at_least_float32, scores_of, true_class_rank
from convscope.train.running.accumulation import micro_batches, num_micro_batches
from convscope.train.running.diverging import check_loss


def take_step(
    learner: Learner, batch: tuple[Tensor, Tensor], batch_size: int, num_processes: int, number: int
) -> Tensor:
    """Take one optimizer step, and return what this process saw of it.

    The loss is the mean cross-entropy of the whole batch. Gradients are averaged over the processes, so
    ``n`` of the batch's ``N`` images weigh their mean loss by ``n * processes / N``.

    Args:
        learner: the network, in training mode, with its learning rate set.
        batch: images ``(n, C, H, W)`` and labels ``(n,)`` of this process, on its device.
        batch_size: N, over all processes.
        num_processes: that share the batch.
        number: optimizer steps done, this one included.

    Returns:
        ``(2,)`` float32 on the device: the weighed loss before the step, and how many images were right.
        Reading it makes the host wait for the device.

    Raises:
        Diverging: on CPU, a loss isn't finite; the weights haven't changed then.
    """
    learner.optimizer.zero_grad()
    count = num_micro_batches(batch_size, num_processes, learner.config.accumulation)
    values = []
    for index, (pixels, labels) in enumerate(micro_batches(*batch, count)):
        weight = len(labels) * num_processes / batch_size
        with learner.accumulating(is_last=index == count - 1):
            values.append(_pass(learner, pixels, labels, weight))
    learner.update(number)
    return values[0] if count == 1 else torch.stack(values).sum(0)


def _pass(learner: Learner, pixels: Tensor, labels: Tensor, weight: float) -> Tensor:
    """Forward and backward of one micro-batch."""
    config = learner.config
    with autocast(config, pixels.device):
        scores = scores_of(learner.prepared(pixels.to(input_dtype(learner.model))))
    loss = F.cross_entropy(at_least_float32(scores), labels, label_smoothing=config.label_smoothing) * weight
    check_loss(loss, learner.prepared)
    learner.backward(loss)
    right = (true_class_rank(scores.detach(), labels) == 0).sum()
    return torch.stack([loss.detach().float(), right.float()])
