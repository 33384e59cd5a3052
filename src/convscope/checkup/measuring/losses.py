"""The loss on a batch, and the gap between test-time and batch statistics.

The gap is paired: both losses are taken on the same samples, so that its standard error is that of their
differences, not of the losses themselves.

The samples of a batch share its statistics, so that their differences go up and down together: taken as drawn
one by one, their error came out 1.16 to 1.53 times too small (60 draws each of 2 to 8 batches of 8 to 32). So
the error is that between batches, each with its samples' weight. A few batches may agree by chance; there the
error between samples is added (squares, the latter times 3 / (B − 1), at most 1), which left the spread
of gaps at 0.86 to 1.11 such errors. How sure an error is of itself shows in the doubt: four of them by
Student's t with B − 1 degrees of freedom; with a few batches whose samples are known, what is as unlikely as
three by three degrees more, four at least; and never more than twelve where samples are known.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from convscope.checkup.observed import Gap
from convscope.checkup.observed.gap import SURE
from convscope.core.errors import ConvscopeError
from convscope.core.student import student

Loss = Callable[[Any, Any], Tensor]
"""``loss(outputs, labels)``: a scalar tensor."""

_IGNORED = -100  # the label that PyTorch's cross-entropy leaves out
_FEW_BATCHES = 10  # whose spread is known to no better than a quarter of itself
_PRIOR = 3.0  # degrees of freedom that the error between samples counts for beside few batches
_RARE = 3.0  # standard deviations that a chance of one in seven hundred is
_MOST = 12.0  # standard errors: three times the usual, which is more than common statistics were seen to add


def default_loss(outputs: Any, labels: Any) -> Tensor:
    """Return each sample's cross-entropy between logits and integer class labels, shape (N,).

    A mean over the sample's positions without those labelled −100; 0 where all are. Weighed by
    :func:`weights_of`, the mean over samples is that of ``nn.CrossEntropyLoss()``.

    Args:
        outputs: what the model returned; the first floating tensor in it with at least two axes is taken
            for logits (N, classes, *).
        labels: integers (N, *): a tensor, an array or a list.

    Raises:
        ConvscopeError: a label isn't one of the classes, or there are no logits of that many samples.
    """
    labels = _as_tensor(labels)
    known = [tensor for tensor in tensors_of(outputs) if tensor.dim() >= 2]
    logits = next((tensor for tensor in known if tensor.shape[0] == len(labels)), None)
    if logits is None or labels.shape != logits.shape[:1] + logits.shape[2:]:
        shapes = [tuple(tensor.shape) for tensor in ([logits] if logits is not None else known)]
        raise ConvscopeError(
            f"labels of shape {tuple(labels.shape)} for "
            + (f"logits of shape {shapes[0]}" if shapes else "outputs without logits (samples, classes)"),
            "one integer label per prediction",
            "pass loss=callable(outputs, labels), or batches without labels",
        )
    labels = labels.to(logits.device)
    _check_classes(labels[labels != _IGNORED], logits.shape[1])
    each = F.cross_entropy(logits.double(), labels.long(), reduction="none", ignore_index=_IGNORED)
    return each.reshape(len(labels), -1).sum(1) / _num_valid(labels).clamp_min(1)


def weights_of(loss: Loss | None, labels: Any, num_samples: int) -> Tensor:
    """Return what the losses of a batch weigh: (N,) positions that have a label, or one number of samples.

    Args:
        loss: the user's, whose result is a mean over all samples; None for the default one.
        labels: of the batch.
        num_samples: how many the batch has.

    Example:
        >>> weights_of(None, torch.tensor([[1, -100], [0, 2]]), 2)
        tensor([1., 2.], dtype=torch.float64)
    """
    if loss is not None:
        return torch.tensor([num_samples], dtype=torch.float64)
    return _num_valid(_as_tensor(labels)).double().cpu()


def _num_valid(labels: Tensor) -> Tensor:
    return (labels != _IGNORED).reshape(len(labels), -1).sum(1)


def _as_tensor(labels: Any) -> Tensor:
    return labels if isinstance(labels, Tensor) else torch.as_tensor(labels)


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
    """Return whether labels are integers, as the default loss wants them: a tensor, an array or a list."""
    if isinstance(labels, list):
        return bool(labels) and all(type(label) is int for label in labels)
    if isinstance(labels, np.ndarray):
        return labels.ndim > 0 and labels.dtype.kind in "iu"
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
    """Gathers the paired losses of the batches.

    Attributes:
        num_samples: of the batches that were taken in.
    """

    def __init__(self) -> None:
        self.num_samples = 0
        self._pairs: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, eval_loss: Tensor, batch_loss: Tensor, weights: Tensor, num_samples: int) -> bool:
        """Take in one batch's losses: one per sample, or one mean.

        Args:
            eval_loss: (N,), or one number.
            batch_loss: the same with batch statistics.
            weights: what each of them stands for, of the same shape, as of :func:`weights_of`.
            num_samples: how many there are in the batch.

        Returns:
            Whether there was any: not where nothing has a label.
        """
        before, after = (loss.detach().double().cpu().reshape(-1) for loss in (eval_loss, batch_loss))
        is_any = bool((weights > 0).any())
        if is_any:
            used = weights > 0
            self._pairs.append((before[used], after[used], weights[used]))
            self.num_samples += num_samples
        return is_any

    @property
    def num_batches(self) -> int:
        """How many batches were taken in."""
        return len(self._pairs)

    @property
    def by_samples(self) -> bool:
        """Whether a batch's samples have losses of their own."""
        return any(len(weights) > 1 for _, _, weights in self._pairs)

    def gap(self) -> Gap | None:
        """Return the gap with its standard error, or None if nothing was taken in."""
        if not self._pairs:
            return None
        before, after, weights = (torch.cat(parts) for parts in zip(*self._pairs, strict=True))
        total = weights.sum()
        mean = float(((before - after) * weights).sum() / total)
        off = [weight * (old - new - mean) for old, new, weight in self._pairs]
        of_samples = _error(torch.cat(off), total) if self.by_samples else None
        of_batches = _error(torch.stack([each.sum() for each in off]), total)
        return Gap(
            float((before * weights).sum() / total),
            float((after * weights).sum() / total),
            *self._chance(of_samples, of_batches),
        )

    def _chance(
        self, of_samples: float | None, of_batches: float | None
    ) -> tuple[float | None, float | None]:
        """The standard error and the doubt, from the errors between samples and between batches."""
        known = [error for error in (of_samples, of_batches) if error is not None]
        if not known:
            return None, None
        error = max(known)
        if of_samples is not None and of_batches is not None:
            free = self.num_batches - 1
            few = self.num_batches < _FEW_BATCHES
            both = math.hypot(of_batches, math.sqrt(min(1.0, _PRIOR / free)) * of_samples)
            error = max(both, of_samples) if few else of_batches
        bounds = [] if of_samples is None else [_MOST * error]
        if of_batches is not None:
            helped = of_samples is not None and self.num_batches < _FEW_BATCHES
            free = self.num_batches - 1 + (int(_PRIOR) if helped else 0)
            sure = max(SURE, student(_RARE, free)) if helped else student(SURE, free)
            bounds.append(sure * error)
        return error, min(bounds)


def _error(off: Tensor, total: Tensor) -> float | None:
    """A weighted mean's standard error, from its units' weighted distances from it; None for one unit."""
    if len(off) < 2:
        return None
    return math.sqrt(float(off.square().sum() / total.square()) * len(off) / (len(off) - 1))


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
