"""The model beside the network that it was made from, or beside a checkpoint."""

from typing import Any

from torch import nn

from convscope.checkup.measuring.batches import Batch
from convscope.checkup.observed import ReferenceFacts


def reference_facts(model: nn.Module, reference: Any, batch: Batch | None) -> ReferenceFacts | None:
    """Return how a model differs from its reference; None without one.

    Args:
        model: comes back as it was.
        reference: a network, a state dict, or a checkpoint's file.
        batch: inputs for both, or None.

    Raises:
        ConvscopeError: the reference is none of these, or has no layer's path in common with the model.
    """
    return None
