"""What is measured after an epoch, and within: the network, and the average of its weights."""

import time
from functools import partial
from typing import TYPE_CHECKING

from convscope.train.measuring.confusion import FILE_NAME, save_confusion
from convscope.train.measuring.evaluate import Evaluation, evaluate
from convscope.train.run import EpochRecord, Measurement
from convscope.train.running.averaged import measured_average
from convscope.train.running.engine import share_buffers

if TYPE_CHECKING:
    from convscope.train.running.loop import Training


def measured_epoch(training: "Training", started: float) -> EpochRecord:
    """Measure a run after the last step of an epoch, and return the epoch's record.

    The confusion table of the best epoch so far and the average of the weights are written.

    Args:
        training: the run; its processes have the same buffers.
        started: the time (``time.perf_counter``) at which the epoch's training ended.
    """
    position, folder = training.position, training.folder
    validation = training.images("validation", 0)
    result = evaluate(training.model, validation, training.config, training.accelerator)
    if training.accelerator.is_main_process and position.is_best(result.accuracy, result.loss):
        confusion = result.confusion(tuple(training.data.classes), position.epoch + 1)
        save_confusion(folder.path / FILE_NAME, confusion)
    average = _average(training)
    return EpochRecord(
        epoch=position.epoch + 1,
        step=position.step,
        train_loss=position.epoch_loss / position.epoch_images,
        train_accuracy=position.epoch_correct / position.epoch_images,
        validation_loss=result.loss,
        validation_accuracy=result.accuracy,
        validation_top5=result.top5,
        learning_rate=training.rate(position.step - 1),
        images_per_second=position.epoch_images / position.epoch_seconds,
        seconds=position.epoch_seconds + time.perf_counter() - started,
        average_loss=average.loss if average else None,
        average_accuracy=average.accuracy if average else None,
        skipped_steps=training.learner.num_skipped,
    )


def measured_within(training: "Training") -> Measurement:
    """Measure a run in the middle of an epoch; its processes take the main process's buffers first.

    Distributed training gives them these buffers before the next step anyway.
    """
    share_buffers(training.model, training.accelerator)
    validation, position = training.images("validation", 0), training.position
    result = evaluate(training.model, validation, training.config, training.accelerator)
    return Measurement(position.step, position.epoch + 1, result.loss, result.accuracy)


def _average(training: "Training") -> Evaluation | None:
    """Measure the average of the weights, and write it; None if there is none."""
    if training.learner.average is None:
        return None
    keep = partial(training.save_weights, training.folder.average)
    validation = training.images("validation", 0)
    return measured_average(training.learner, training.data, validation, training.accelerator, keep)
