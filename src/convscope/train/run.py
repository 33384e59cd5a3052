"""What a training run was and how it went."""

from dataclasses import dataclass

from convscope.checkup.observed.run import Percentiles
from convscope.core.result import Result
from convscope.train.config import TrainConfig

MAX_STEP_RECORDS = 1000


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step.

    Attributes:
        step: optimizer steps so far, this one included.
        epoch: the epoch it is in, from 1.
        loss: mean cross-entropy (nats, label smoothing included) of the batch before the step.
        accuracy: share of the batch that the network got right before the step, in training mode.
        learning_rate: the rate used.
    """

    step: int
    epoch: int
    loss: float
    accuracy: float
    learning_rate: float


@dataclass(frozen=True)
class EpochRecord:
    """One pass over the training images, and the measurement after it.

    Attributes:
        epoch: from 1.
        step: optimizer steps so far.
        train_loss: mean loss (nats) of the epoch's images, each measured when it was trained on.
        train_accuracy: share of those images that the network got right then, in training mode.
        validation_loss: mean cross-entropy (nats, without label smoothing) in evaluation mode.
        validation_accuracy: share of validation images whose class has the highest score (top-1).
        validation_top5: share whose class is among the five highest; None with five classes or fewer,
            where it would always be 1.
        learning_rate: rate of the epoch's last step.
        images_per_second: training images per second of training, loading included, evaluation and
            checkpoints not.
        seconds: duration of the epoch, with evaluation.
    """

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    validation_top5: float | None
    learning_rate: float
    images_per_second: float
    seconds: float


@dataclass(frozen=True)
class Divergence:
    """Where a run stopped because its loss was no longer finite.

    Attributes:
        step: the first step whose loss was infinite or NaN; its batch was the step-th of the run.
        epoch: its epoch, from 1.
        loss: that loss.
        learning_rate: the rate of that step.
    """

    step: int
    epoch: int
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class Run(Result):
    """A training run.

    Attributes:
        name: the run's name: that of its folder.
        network: the reference or class name of the network.
        data: name of the data.
        classes: class names, by label.
        config: the settings.
        epochs: a record of each finished epoch.
        steps: records of at most 1,000 steps, evenly thinned, the first and last among them. The log
            has every step.
        seconds: time spent in the run's epochs, those before a resumption included.
        images_per_second: training images per second over all finished epochs.
        validation_accuracy: after the last finished epoch; None if there is none.
        checkpoint: file to resume from; None if the run ended before the first one.
        weights: file with the final weights under their plain names; None if the run diverged.
        best_weights: file with the weights of the epoch with the highest validation accuracy.
        diverged: where and how the run diverged, or None.
        percentiles: of what each layer's non-linearity reads, over the steps of finished epochs; empty if
            the network can't be watched.
    """

    name: str
    network: str
    data: str
    classes: tuple[str, ...]
    config: TrainConfig
    epochs: tuple[EpochRecord, ...]
    steps: tuple[StepRecord, ...]
    seconds: float
    images_per_second: float
    validation_accuracy: float | None
    checkpoint: str | None
    weights: str | None
    best_weights: str | None
    diverged: Divergence | None = None
    percentiles: tuple[Percentiles, ...] = ()

    @property
    def best_epoch(self) -> EpochRecord | None:
        """The epoch with the highest validation accuracy, the earliest of several; None if there is none."""
        return max(self.epochs, key=lambda record: record.validation_accuracy, default=None)


def thinned(steps: list[StepRecord], most: int = MAX_STEP_RECORDS) -> tuple[StepRecord, ...]:
    """Return at most ``most`` of the records (``most`` >= 2), evenly spread, with the first and the last.

    Example:
        >>> records = [StepRecord(step, 1, 0.0, 0.0, 0.1) for step in range(1, 101)]
        >>> [record.step for record in thinned(records, most=4)]
        [1, 34, 67, 100]
    """
    if len(steps) <= most:
        return tuple(steps)
    return tuple(steps[round(place * (len(steps) - 1) / (most - 1))] for place in range(most))
