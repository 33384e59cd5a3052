"""Leaving PyTorch's inference mode, where nothing can be differentiated and operators come whole."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def outside_inference_mode() -> Iterator[None]:
    """Run a block outside of inference mode; elsewhere nothing changes, whether gradients are on included.

    Tensors that were made in inference mode stay what they are: they can be read, not saved for backward.

    Example:
        >>> with torch.inference_mode(), outside_inference_mode():
        ...     torch.ones(1).is_inference()
        False
    """
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False):
        yield
