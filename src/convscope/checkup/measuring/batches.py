"""The check-up's data, as batches."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from convscope.probe.batches import Batch
from convscope.probe.batches import batches_of as _batches_of

__all__ = ["Batch", "Kept", "batches_of"]

_FORMS = "a batch (images or (images, labels)), a loader of batches, an input shape, or None"


def batches_of(model: nn.Module, data: Any) -> Iterator[Batch]:
    """Yield the batches in ``data``, checked and on the model's device.

    Args:
        model: who will run them.
        data: in any form of :mod:`convscope.probe.batches`.

    Raises:
        ConvscopeError: there is no batch, a batch has no images, or images hold NaN or infinity.
    """
    return _batches_of(model, data, _FORMS)


class Kept:
    """The first batches with labels, as many as fit into so many bytes.

    Attributes:
        batches: what is kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self.batches: list[Batch] = []
        self._room = max_bytes

    def add(self, batch: Batch) -> None:
        """Keep a batch, if it has labels and there is room for it."""
        leaves = tree_leaves((batch.args, batch.kwargs, batch.labels))
        size = sum(leaf.numel() * leaf.itemsize for leaf in leaves if isinstance(leaf, Tensor))
        if batch.labels is not None and size <= self._room:
            self.batches.append(batch)
        self._room -= size
