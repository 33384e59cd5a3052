"""What a data loader says of itself."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LoaderFacts:
    """What a ``DataLoader`` says of itself.

    Attributes:
        num_samples: length of what its sampler yields.
        batch_size: samples in a full batch.
        last_batch: samples in the last batch that it yields; ``batch_size`` if all are full.
        drop_last: whether it leaves out an incomplete last batch.
        shuffles: whether its sampler draws at random.
    """

    num_samples: int
    batch_size: int
    last_batch: int
    drop_last: bool
    shuffles: bool
