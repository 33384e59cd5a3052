"""What a user's own training loop has shown while it was watched."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingRun:
    """A stretch of training, as :func:`convscope.checkup.watching.watch` saw it.

    Attributes:
        num_steps: optimizer steps.
    """

    num_steps: int
