"""Where a run is, and which run it is: what a checkpoint says beside its tensors."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Position:
    """Where a run is; mutable, and the part of a checkpoint that isn't tensors.

    Attributes:
        epoch: finished epochs.
        batch: batches done in the running epoch.
        step: optimizer steps done.
        epoch_loss: sum of the running epoch's losses over its images.
        epoch_correct: images of the running epoch that the network got right.
        epoch_images: images of the running epoch so far.
        epoch_seconds: time spent on the running epoch's training steps.
        best_accuracy: highest validation accuracy so far; -1 before the first epoch.
        best_loss: lowest validation loss of the epochs with that accuracy; None before the first.
        waited: of the ``"plateau"`` schedule: epochs without a lower validation error.
        falls: of the ``"plateau"`` schedule: how often the learning rate has been lowered.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    epoch_loss: float = 0.0
    epoch_correct: int = 0
    epoch_images: int = 0
    epoch_seconds: float = 0.0
    best_accuracy: float = -1.0
    best_loss: float | None = None
    waited: int = 0
    falls: int = 0

    def is_best(self, accuracy: float, loss: float) -> bool:
        """Whether an epoch is the best so far: more images right, or as many at a lower loss."""
        if accuracy == self.best_accuracy:
            return self.best_loss is not None and loss < self.best_loss
        return accuracy > self.best_accuracy


@dataclass(frozen=True)
class Identity:
    """What a checkpoint must agree with to be of the same run.

    Attributes:
        network: the network's reference or class name.
        data: name of the data.
        num_images: training images.
        steps_per_epoch: optimizer steps in an epoch; the number of processes can change it.
        classes: class names.
        config: the settings that decide about the weights.
        frozen: names of the parameters that aren't trained; None in older checkpoints, which don't say.
    """

    network: str
    data: str
    num_images: int
    steps_per_epoch: int
    classes: list[str]
    config: dict[str, Any] = field(default_factory=dict)
    frozen: list[str] | None = None
