"""The loss on held-out data with the old and with the new statistics, batch by batch on the same inputs."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from convscope.core.errors import ConvscopeError
from convscope.norm.recalibration.result import HeldOut

Loss = Callable[[Any, Any], Tensor]
"""``loss(outputs, labels)``: a scalar tensor, or one number a sample."""


class LossPairs:
    """Gathers both losses of every sample, or of every batch if a loss is one number.

    Example:
        >>> pairs = LossPairs()
        >>> pairs.add(torch.tensor([2.0, 4.0]), torch.tensor([1.0, 1.0]), num_samples=2)
        >>> found = paired([pairs.rows])
        >>> found.before, found.after, found.error
        (3.0, 1.0, 1.0)
    """

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, float]] = []
        """Loss before, loss after, and how many samples they stand for."""

    def add(self, before: Tensor, after: Tensor, num_samples: int) -> None:
        """Take in a batch's losses, (N,) or a scalar, with the old and the new statistics."""
        pairs = [loss.detach().double().flatten().tolist() for loss in (before, after)]
        weight = num_samples / len(pairs[0])
        self.rows += [(old, new, weight) for old, new in zip(*pairs, strict=True)]


def paired(rows: list[list[tuple[float, float, float]]]) -> HeldOut:
    """Return mean losses and the standard error of their difference, from all processes' pairs.

    Raises:
        ConvscopeError: there are none.
    """
    pairs = torch.tensor([row for part in rows for row in part], dtype=torch.float64)
    if not len(pairs):
        raise ConvscopeError("held-out data without a single batch", "at least one batch", "check its length")
    before, after, weight = pairs.unbind(1)
    total, differences = weight.sum(), after - before
    mean = (weight * differences).sum() / total
    error = None
    if len(pairs) > 1:
        # The weighted mean's variance, from the spread of what the losses came in.
        spread = (weight * (differences - mean)).square().sum() / total.square()
        error = math.sqrt(float(spread) * len(pairs) / (len(pairs) - 1))
        error = error if math.isfinite(error) else None
    return HeldOut(
        before=float((weight * before).sum() / total),
        after=float((weight * after).sum() / total),
        error=error,
        num_samples=round(float(total)),
    )


def loss_of(loss: Loss | None, outputs: Any, labels: Any, num_samples: int) -> Tensor:
    """Return the user's loss of a model's outputs, or cross-entropy, a number or (N,).

    Raises:
        ConvscopeError: the loss fails or has another shape; there is none, and labels aren't classes.
    """
    if loss is None:
        return _cross_entropy(outputs, labels)
    try:
        found = loss(outputs, labels)
    except ConvscopeError:
        raise
    except Exception as error:
        raise ConvscopeError(
            f"loss failed on the model's outputs ({type(error).__name__}: {error})",
            "a callable loss(outputs, labels)",
            "check its arguments",
        ) from error
    if not isinstance(found, Tensor) or (found.numel() != 1 and found.shape != (num_samples,)):
        shape = f" of shape {tuple(found.shape)}" if isinstance(found, Tensor) else ""
        raise ConvscopeError(
            f"loss returned {type(found).__name__}{shape}", "a scalar tensor, or one number a sample",
            "average over the batch",
        )  # fmt: skip
    return found


def _cross_entropy(outputs: Any, labels: Any) -> Tensor:
    """Each sample's cross-entropy between the first logits in the outputs and integer class labels."""
    classes = isinstance(labels, Tensor) and labels.dim() > 0 and labels.dtype in (torch.int64, torch.int32)
    leaves = tree_leaves(outputs)
    logits = next((leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()), None)
    if not classes or logits is None or labels.shape != logits.shape[:1] + logits.shape[2:]:
        raise ConvscopeError(
            "held-out data without a loss, and without integer labels for the model's outputs",
            "batches (inputs, class labels), or a loss",
            "pass loss=callable(outputs, labels)",
        )
    each = F.cross_entropy(logits.double(), labels.long(), reduction="none")
    return each.reshape(len(labels), -1).mean(1)
