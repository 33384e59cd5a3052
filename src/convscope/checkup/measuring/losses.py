"""The loss on a batch, and the gap between test-time and batch statistics.

The gap is paired: both losses are taken on the same samples, so that its standard error is that of their
differences, not of the losses themselves.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from convscope.checkup.observed import Gap
from convscope.core.errors import ConvscopeError

Loss = Callable[[Any, Any], Tensor]
"""``loss(outputs, labels)``: a scalar tensor."""

_IGNORED = -100  # the label that PyTorch's cross-entropy leaves out


def default_loss(outputs: Any, labels: Any) -> Tensor:
    """Return each sample's cross-entropy between logits and integer class labels, shape (N,).

    Args:
        outputs: what the model returned; the first floating tensor in it with at least two axes is taken
            for logits (N, classes, *).
        labels: integers (N, *).

    Raises:
        ConvscopeError: a label isn't one of the classes, or there are no logits of that many samples.
    """
    logits = next((t for t in tensors_of(outputs) if t.dim() >= 2 and t.shape[0] == len(labels)), None)
    if logits is None or labels.shape != logits.shape[:1] + logits.shape[2:]:
        shape = None if logits is None else tuple(logits.shape)
        raise ConvscopeError(
            f"labels of shape {tuple(labels.shape)} for logits of shape {shape}",
            "one integer label per prediction",
            "pass loss=callable(outputs, labels), or batches without labels",
        )
    _check_classes(labels[labels != _IGNORED], logits.shape[1])
    each = F.cross_entropy(logits.double(), labels.long(), reduction="none", ignore_index=_IGNORED)
    return each.reshape(len(labels), -1).mean(1)


def _check_classes(labels: Tensor, num_classes: int) -> None:
    if not labels.numel():
        return
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= num_classes:
        raise ConvscopeError(
            f"labels from {least} to {most} for {num_classes} classes",
            f"labels from 0 to {num_classes - 1}",
            "check the data's classes against the network's outputs",
        )


def has_class_labels(labels: Any) -> bool:
    """Return whether labels are integers, as the default loss wants them."""
    return (
        isinstance(labels, Tensor)
        and labels.dim() > 0
        and not labels.is_floating_point()
        and labels.dtype is not torch.bool
    )


def tensors_of(outputs: Any) -> list[Tensor]:
    """Return the floating tensors in what a model returned: tensors, containers, output objects."""
    if not isinstance(outputs, Tensor | list | tuple | Mapping) and hasattr(outputs, "__dict__"):
        outputs = vars(outputs)
    if isinstance(outputs, Mapping):
        outputs = dict(outputs)
    return [t for t in tree_leaves(outputs) if isinstance(t, Tensor) and t.is_floating_point()]


class GapMeter:
    """Gathers the paired losses of the batches."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor, int]] = []

    def add(self, eval_loss: Tensor, batch_loss: Tensor, num_samples: int) -> None:
        """Take in one batch's losses: per sample (N,), or one mean over ``num_samples``."""
        before, after = (loss.detach().double().cpu().reshape(-1) for loss in (eval_loss, batch_loss))
        self._pairs.append((before, after, num_samples))

    def gap(self) -> Gap | None:
        """Return the gap with its standard error, or None if nothing was taken in."""
        if not self._pairs:
            return None
        before, after, weights = self._weighted()
        total = weights.sum()
        differences = before - after
        mean = float((differences * weights).sum() / total)
        error = None
        if len(weights) > 1:
            # The weighted mean's variance, from the spread of the units that the losses came in.
            spread = (weights * (differences - mean)).square().sum() / total.square()
            error = math.sqrt(float(spread) * len(weights) / (len(weights) - 1))
        return Gap(float((before * weights).sum() / total), float((after * weights).sum() / total), error)

    def _weighted(self) -> tuple[Tensor, Tensor, Tensor]:
        """Both losses of every unit (sample or batch), and how many samples a unit stands for."""
        before = torch.cat([before for before, _, _ in self._pairs])
        after = torch.cat([after for _, after, _ in self._pairs])
        weights = torch.cat([torch.full_like(a, n / len(a)) for a, _, n in self._pairs])
        return before, after, weights


def loss_of(loss: Loss | None, outputs: Any, labels: Any) -> Tensor:
    """Return the user's loss, or the default one, of a model's outputs.

    Raises:
        ConvscopeError: the loss fails on these outputs and labels, or doesn't return a scalar.
    """
    if loss is None:
        return default_loss(outputs, labels)
    try:
        result = loss(outputs, labels)
    except ConvscopeError:
        raise
    except Exception as error:
        raise ConvscopeError(
            f"loss failed on the model's outputs ({type(error).__name__}: {error})",
            "a callable loss(outputs, labels) that returns a scalar tensor",
            "check its arguments",
        ) from error
    if not isinstance(result, Tensor) or result.numel() != 1:
        raise ConvscopeError(
            f"loss returned {type(result).__name__}", "a scalar tensor", "average over the batch"
        )
    return result
