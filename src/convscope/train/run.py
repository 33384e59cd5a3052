"""What a training run was and how it went."""

from dataclasses import dataclass

from convscope.checkup.observed.run import Percentiles
from convscope.core.result import Result
from convscope.train.config import TrainConfig
from convscope.train.measuring.confusion import Confusion
from convscope.train.telling.diverged import in_words

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
        validation_top5: share whose class is among the five highest scores; None with five scores or fewer,
            where it would always be 1.
        learning_rate: rate of the epoch's last step.
        images_per_second: training images per second of training, loading included, evaluation and
            checkpoints not.
        seconds: duration of the epoch's training, and of the evaluation after it; checkpoints and
            measurements inside the epoch aren't counted.
        average_loss: ``validation_loss`` of the average of the weights; None without ``ema_decay``.
        average_accuracy: ``validation_accuracy`` of the average of the weights; None without ``ema_decay``.
        skipped_steps: optimizer steps of the run so far that were skipped, because gradients overflowed in
            float16.
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
    average_loss: float | None = None
    average_accuracy: float | None = None
    skipped_steps: int = 0


@dataclass(frozen=True)
class Measurement:
    """What the network does on the validation images in the middle of an epoch.

    Attributes:
        step: optimizer steps so far.
        epoch: the epoch it is in, from 1.
        validation_loss: see :class:`EpochRecord`.
        validation_accuracy: see :class:`EpochRecord`.
    """

    step: int
    epoch: int
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class Divergence:
    """Where a run stopped because its loss, its weights or its running statistics were no longer finite.

    Attributes:
        step: the first step whose loss was infinite or NaN, or after which, with a finite loss, a weight or
            a running statistic was; its batch was the step-th of the run.
        epoch: its epoch, from 1.
        loss: the loss of that step; NaN if it isn't known.
        learning_rate: the rate of that step.
        address: of the first value that wasn't finite: of the operator that computed it, of the module call
            if that is one of PyTorch's own layers, or the name of a weight, a running statistic or a buffer.
            None, as all that follow, if it wasn't found.
        what: ``"input"`` (an image), ``"output"``, ``"loss"``, ``"gradient"``, ``"weight"``,
            ``"running statistics"`` or ``"buffer"``.
        value: ``"nan"``, ``"inf"`` or ``"-inf"``.
        index: its position in its tensor; of an image in the batch the first number.
        largest_finite: largest finite magnitude in what the operator at ``address`` was given; of images,
            weights and buffers in themselves.
        image: of an image, its number in the training set.
        appeared_at: the step that computed the value: ``step``, or an earlier one whose loss was still
            finite; 0 if it was there at the last checkpoint already; None if that isn't known.
    """

    step: int
    epoch: int
    loss: float
    learning_rate: float
    address: str | None = None
    what: str | None = None
    value: str | None = None
    index: tuple[int, ...] | None = None
    largest_finite: float | None = None
    image: int | None = None
    appeared_at: int | None = None

    def __str__(self) -> str:
        return in_words(self)


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
        best_weights: file with the weights of :attr:`best_epoch`.
        diverged: where and how the run diverged, or None.
        percentiles: of what batch norms put out (without any: group and instance norms; without these:
            convolutions and linear layers), over the steps of finished epochs; empty if the network can't be
            watched.
        average_weights: file with the averaged weights as of the last finished epoch; None without
            ``ema_decay``.
        confusion: which classes the network of the best epoch took for which, on the validation images;
            None before the first epoch.
        measurements: inside epochs, where ``evaluate_every`` asks for them.
        num_train, num_validation: images; None in runs that don't say.
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
    average_weights: str | None = None
    confusion: Confusion | None = None
    measurements: tuple[Measurement, ...] = ()
    num_train: int | None = None
    num_validation: int | None = None

    @property
    def errors(self) -> tuple[tuple[int, float], ...]:
        """Steps and the validation error (0 to 1) after them: of all measurements, in order."""
        every: list[EpochRecord | Measurement] = [*self.epochs, *self.measurements]
        return tuple(sorted((each.step, 1 - each.validation_accuracy) for each in every))

    @property
    def best_epoch(self) -> EpochRecord | None:
        """The epoch with the highest validation accuracy, of several that with the lowest loss, or None."""
        return max(
            self.epochs,
            key=lambda record: (record.validation_accuracy, -record.validation_loss),
            default=None,
        )


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
