"""What a reading leaves alone besides the model: the random number generators and the user's warnings."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from convscope.core.preserved import preserved_rng

# What a reentrant checkpoint says in a run without gradients, which is ours, not the user's.
CHECKPOINT_WARNING = "None of the inputs have requires_grad=True"


@contextmanager
def undisturbed() -> Iterator[None]:
    """Run a block which draws no number from the global generators and doesn't warn of its own runs.

    The reading of images counts too: an iterator over a DataLoader draws a seed from PyTorch's generator.
    """
    with preserved_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=CHECKPOINT_WARNING)
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata; what is damaged is named
        yield
