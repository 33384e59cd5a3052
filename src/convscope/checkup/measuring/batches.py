"""The check-up's data, as batches."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from convscope.checkup.measuring.generators import draws_of
from convscope.probe.batches import Batch, items_of
from convscope.probe.batches import batches_of as _batches_of

__all__ = [
    "Batch",
    "Kept",
    "KeptBatch",
    "batches_of",
    "num_batches_of",
    "preserved_order",
]

_FORMS = "a batch (images or (images, labels)), a loader of batches, an input shape, or None"


def batches_of(model: nn.Module, data: Any) -> Iterator[Batch]:
    """Yield the batches in ``data``, checked and on the model's device.

    Args:
        model: who will run them.
        data: in any form of :mod:`convscope.probe.forms`.

    Raises:
        ConvscopeError: there is no batch, a batch has no images, or images hold NaN or infinity.
    """
    return _batches_of(model, data, _FORMS)


def num_batches_of(data: Any) -> int | None:
    """Return how many batches there are in ``data``, checked to be of a known form; None if it doesn't say.

    Example:
        >>> import torch
        >>> num_batches_of(torch.zeros(8, 3)), num_batches_of(torch.zeros(8, 3).split(4))
        (1, 2)
    """
    try:
        return len(items_of(data, _FORMS))  # type: ignore[arg-type]
    except TypeError:  # a generator, or a loader of a stream
        return None


@contextmanager
def preserved_order(data: Any) -> Iterator[None]:
    """Run a block after which a loader's own generators are as they were, so that training shuffles alike.

    Also after an exception. The global generators are in the care of
    :func:`convscope.core.preserved.preserved_rng`.

    Example:
        >>> import torch
        >>> own = torch.Generator().manual_seed(0)
        >>> loader = torch.utils.data.DataLoader(torch.zeros(8, 3), shuffle=True, generator=own)
        >>> with preserved_order(loader):
        ...     _ = list(loader)
        >>> torch.equal(own.get_state(), torch.Generator().manual_seed(0).get_state())
        True
    """
    draws = draws_of(data)
    try:
        yield
    finally:
        for each in draws:
            each.restore()


@dataclass(frozen=True, eq=False)
class KeptBatch:
    """A batch, and its loss in evaluation mode: (N,) or one number."""

    batch: Batch
    loss: Tensor


class Kept:
    """The first batches that have a loss, as many as fit into so many bytes.

    Attributes:
        batches: what is kept.
        num_left_out: how many there was no room for.
    """

    def __init__(self, max_bytes: int) -> None:
        self.batches: list[KeptBatch] = []
        self.num_left_out = 0
        self._room = max_bytes

    def add(self, batch: Batch, loss: Tensor | None) -> None:
        """Keep a batch, if it has a loss and there is room for it and was for those before."""
        if loss is None:
            return
        leaves = tree_leaves((batch.args, batch.kwargs, batch.labels))
        self._room -= sum(leaf.numel() * leaf.itemsize for leaf in leaves if isinstance(leaf, Tensor))
        if self._room >= 0:
            self.batches.append(KeptBatch(batch, loss.detach()))
        else:
            self.num_left_out += 1
