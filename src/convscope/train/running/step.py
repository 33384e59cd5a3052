"""One optimizer step: forward, loss, backward, clipping, update."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.train.config import TrainConfig
from convscope.train.learning.precision import autocast, input_dtype
from convscope.train.measuring.scores import at_least_float32, scores_of, true_class_rank

if TYPE_CHECKING:
    from accelerate import Accelerator


def take_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor],
    weight: float,
    config: TrainConfig,
    accelerator: "Accelerator",
) -> Tensor:
    """Take one optimizer step, and return what this process saw of it.

    The loss is the mean cross-entropy of the whole batch. Gradients are averaged over the processes, so
    a process with ``n`` of the batch's ``N`` images weighs its mean loss by ``n * processes / N``.

    Args:
        model: the prepared network, in training mode.
        optimizer: the prepared optimizer, its learning rate set.
        batch: images ``(n, C, H, W)`` and labels ``(n,)`` of this process.
        weight: see above; 1 for one process.
        config: the run's settings.
        accelerator: runs the backward pass.

    Returns:
        ``(2,)`` float32 on the device: the weighed loss before the step, and how many images were right.
        Reading it makes the host wait for the device.
    """
    pixels, labels = batch
    with autocast(config, accelerator.device):
        scores = scores_of(model(pixels.to(input_dtype(model))))
    loss = F.cross_entropy(at_least_float32(scores), labels, label_smoothing=config.label_smoothing) * weight
    optimizer.zero_grad()
    accelerator.backward(loss)
    if config.clip_grad_norm is not None:
        accelerator.clip_grad_norm_(
            [p for p in model.parameters() if p.grad is not None], config.clip_grad_norm
        )
    optimizer.step()
    right = (true_class_rank(scores.detach(), labels) == 0).sum()
    return torch.stack([loss.detach().float(), right.float()])
