"""The check-up's data, as batches."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from convscope.probe.batches import Batch
from convscope.probe.batches import batches_of as _batches_of

__all__ = ["Batch", "batches_of"]

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
