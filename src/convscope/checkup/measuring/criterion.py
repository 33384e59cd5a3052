"""How the loss of a batch is taken: by the user's loss, the network's own, or cross-entropy.

One rule for every part of a check-up, so that all losses that are compared are of one kind. A loss leaves no
trace: one that is a module, or holds one, runs each time from the state that it was given in, and draws the
same random numbers, so that two losses differ by the outputs alone.

A loss counts as a classification's in nats if it is cross-entropy, by default or by PyTorch's classes and
functions for it; or if it is the user's own and labels are integers, Booleans, floats that are all 0 or 1, or
probabilities that sum to 1 over the classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import ismethod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from convscope.checkup.measuring.batches import Batch
from convscope.checkup.measuring.loss_state import modules_of, without_trace
from convscope.checkup.measuring.losses import (
    as_tensor,
    default_loss,
    described_logits,
    has_class_labels,
    logits_among,
    strange_classes,
    unclear_logits,
    valid_positions,
)
from convscope.checkup.measuring.outputs import named, tensors_of
from convscope.core.errors import ConvscopeError

Loss = Callable[[Any, Any], Tensor]
"""``loss(outputs, labels)``: a scalar tensor."""

WHICH_LOGITS = "pass loss=callable(outputs, labels), or let the network return them as 'logits'"
"""What to do from Python where it isn't clear which output holds the scores."""

_IN_NATS = (nn.CrossEntropyLoss, nn.NLLLoss, nn.BCELoss, nn.BCEWithLogitsLoss)
_FUNCTIONS_IN_NATS = (
    F.cross_entropy,
    F.nll_loss,
    F.binary_cross_entropy,
    F.binary_cross_entropy_with_logits,
)
_PYTORCHS = ("torch.nn.functional", "torch.nn.modules.loss")
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Criterion:
    """How the loss of a batch is taken.

    Attributes:
        loss: the user's; None for cross-entropy, or what the network itself returns as its loss.
        num_classes: of the data, where that is known: which of several outputs the scores are.
    """

    loss: Loss | None
    num_classes: int | None = None

    def __call__(self, outputs: Any, labels: Any) -> Tensor:
        """Return the loss of outputs: one number, or (N,) for cross-entropy; a sum is taken per sample."""
        num_samples = next((len(each) for each in tensors_of(outputs) if each.dim()), 1)
        return self._of(outputs, labels, num_samples, has_labels=True)

    def of(self, outputs: Any, batch: Batch) -> Tensor:
        """Return a batch's loss: one number, or (N,) for cross-entropy; a sum is taken per sample.

        Raises:
            ConvscopeError: the loss fails on these outputs and labels, or doesn't return a scalar; labels
                aren't classes of the network.
        """
        return self._of(outputs, batch.labels, batch.num_samples, has_labels=batch.has_given_labels)

    def weights(self, losses: Tensor, batch: Batch) -> Tensor:
        """Return what a batch's losses weigh: (N,) positions that have a label, or one number of samples."""
        if self.loss is None and losses.dim():
            return valid_positions(batch.labels).double().cpu()
        return torch.tensor([batch.num_samples], dtype=torch.float64)

    def lacking(self, outputs: Any, batch: Batch) -> str:
        """Return why there is no loss of a batch; empty if there is one."""
        if batch.labels is None:
            return "the data has no labels"
        if self.loss is not None or (batch.has_given_labels and _own_loss(outputs) is not None):
            return ""
        if not has_class_labels(batch.labels):
            return "the labels aren't integer classes, and no loss was given"
        if strange := strange_classes(outputs, batch.labels, self.num_classes):
            return strange
        if shapes := unclear_logits(outputs, batch.labels, self.num_classes):
            return f"outputs of shapes {shapes} could be the logits: {WHICH_LOGITS}"
        return ""

    def taken(self, outputs: Any, batch: Batch) -> str:
        """Return which of several outputs the loss is of, in words; empty if that isn't our choice."""
        own = _own_loss(outputs) if batch.has_given_labels else None
        if self.loss is not None or (own is not None and not self._has_logits(outputs, batch.labels)):
            return ""
        return described_logits(outputs, batch.labels, self.num_classes)

    def is_in_nats(self, labels: Any) -> bool:
        """Return whether the loss is that of a classification in nats; see the module's words."""
        if self.loss is None:
            return has_class_labels(labels) or _are_classes(labels)
        kind = _innermost(self.loss)
        if isinstance(kind, _IN_NATS) or any(kind is each for each in _FUNCTIONS_IN_NATS):
            return True
        known = type(kind) if isinstance(kind, nn.Module) else kind
        return getattr(known, "__module__", "") not in _PYTORCHS and _are_classes(labels)

    @property
    def is_sum(self) -> bool:
        """Whether the loss says that it is a sum over samples."""
        reduction = getattr(_innermost(self.loss), "reduction", None)
        if isinstance(self.loss, partial):
            reduction = self.loss.keywords.get("reduction", reduction)
        return reduction == "sum"

    def _of(self, outputs: Any, labels: Any, num_samples: int, *, has_labels: bool) -> Tensor:
        if self.loss is None:
            own = _own_loss(outputs) if has_labels else None
            if own is None or self._has_logits(outputs, labels):
                return default_loss(outputs, labels, self.num_classes)
            return own.reshape(())
        with without_trace(modules_of(self.loss)):
            found = users_loss(self.loss, outputs, labels)
        return found / num_samples if self.is_sum else found

    def _has_logits(self, outputs: Any, labels: Any) -> bool:
        return (
            has_class_labels(labels)
            and bool(logits_among(outputs, labels, self.num_classes))
            and not unclear_logits(outputs, labels, self.num_classes)
        )


def users_loss(loss: Loss, outputs: Any, labels: Any) -> Tensor:
    """Return what the user's loss makes of a model's outputs; labels stay as they are.

    Raises:
        ConvscopeError: the loss fails on these outputs and labels, or doesn't return a scalar.
    """
    labels = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, labels)
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


def _own_loss(outputs: Any) -> Tensor | None:
    """What the network returns as its loss, as it does where it is given labels."""
    found = named(outputs, "loss")
    return found if found is not None and found.numel() == 1 else None


def _innermost(loss: Any) -> Any:
    """The function or module within partial applications, and the module that a method is of."""
    while True:
        if isinstance(loss, partial):
            loss = loss.func
        elif ismethod(loss) and isinstance(loss.__self__, nn.Module):
            loss = loss.__self__
        else:
            return loss


def _are_classes(labels: Any) -> bool:
    """Whether labels are classes: whole numbers, all 0 or 1, or probabilities over axis 1."""
    if isinstance(labels, list) and not any(isinstance(each, Tensor) for each in labels):
        labels = np.asarray(labels) if has_class_labels(labels) else None
    leaves = [as_tensor(each) for each in tree_leaves(labels) if isinstance(each, Tensor | np.ndarray)]
    return bool(leaves) and all(_is_of_classes(each) for each in leaves)


def _is_of_classes(labels: Tensor) -> bool:
    if not labels.is_floating_point():
        return not labels.is_complex()
    if bool(((labels == 0) | (labels == 1)).all()):
        return True
    if labels.dim() < 2 or bool(((labels < 0) | (labels > 1)).any()):
        return False
    return bool(((labels.sum(1) - 1).abs() <= _ROUNDING).all())
