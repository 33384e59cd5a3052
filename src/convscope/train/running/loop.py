"""The loop of a run: epochs of steps, a measurement after each, checkpoints, resumption."""

import dataclasses
import time
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.data import augmented
from convscope.train.config import RESUMABLE, TrainConfig
from convscope.train.feeding.batches import ImageSets, SeededImages, load_batches
from convscope.train.feeding.order import Order, derived_seed, reseed, share
from convscope.train.keeping.checkpoint import (
    Identity,
    Position,
    load_checkpoint,
    save_checkpoint,
    save_weights,
)
from convscope.train.keeping.folder import RunFolder
from convscope.train.keeping.journal import Journal
from convscope.train.learning.optimizer import build_optimizer
from convscope.train.learning.schedule import learning_rate
from convscope.train.measuring.evaluate import evaluate
from convscope.train.run import Divergence, EpochRecord
from convscope.train.running.engine import share_buffers
from convscope.train.running.preflight import readable_failure
from convscope.train.running.step import take_step
from convscope.train.running.watched import watched
from convscope.train.subject import Subject
from convscope.train.telling.progress import Progress, Pulse

if TYPE_CHECKING:
    from accelerate import Accelerator


class Training:
    """One run in progress.

    Args:
        subject: the network.
        prepared: its prepared form (the model itself in a single process).
        data: the images.
        config: the settings.
        accelerator: devices and processes.
        folder: where the files go.
    """

    def __init__(
        self,
        subject: Subject,
        prepared: nn.Module,
        data: ImageSets,
        config: TrainConfig,
        accelerator: "Accelerator",
        folder: RunFolder,
    ) -> None:
        self.model, self.extras, self.prepared = subject.model, subject.extras, prepared
        self.data = data
        self.config = config
        self.accelerator = accelerator
        self.folder = folder
        self.position = Position()
        self.order = Order(len(data.train), config.batch_size, accelerator.num_processes, config.seed)
        self.optimizer = build_optimizer(self.model, config)
        self.prepared_optimizer = accelerator.prepare_optimizer(self.optimizer)
        settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in RESUMABLE}
        self.identity = Identity(
            subject.name, data.name, len(data.train), self.order.steps_per_epoch, list(data.classes), settings
        )

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.config.epochs * self.order.steps_per_epoch

    def load(self) -> None:
        """Go to the folder's checkpoint.

        Raises:
            ConvscopeError: it is damaged, doesn't fit, or is further than this run goes.
        """
        position = load_checkpoint(self.folder.checkpoint, self.model, self.optimizer, self.identity)
        if position.step > self.total_steps:
            raise ConvscopeError(
                f"checkpoint {str(self.folder.checkpoint)!r} after {position.step} steps",
                f"at most {self.total_steps}, the whole run with epochs={self.config.epochs}",
                "give as many epochs as are done, or more",
            )
        self.position = position

    def run(self, journal: Journal, progress: Progress) -> Divergence | None:
        """Train to the end, from the present position; return where the run diverged, if it did."""
        clock, steps = _Clock(self), range(self.position.step, self.total_steps)
        with watched(self.model, self.optimizer, steps, journal.log.percentiles.values()) as curves:
            while self.position.epoch < self.config.epochs:
                diverged = self._train_epoch(journal, progress, clock)
                if diverged is not None:
                    return diverged
                started = time.perf_counter()
                share_buffers(self.model, self.accelerator)
                journal.percentiles(curves.news(), self.position.epoch + 1)
                record = self._measured(started)
                self._finish_epoch(record, journal)
                progress.epoch(record)
                clock.pause(time.perf_counter() - started)
        return None

    def save(self) -> None:
        """Write a checkpoint of the present position, on the main process."""
        if self.accelerator.is_main_process:
            path = self.folder.checkpoint
            save_checkpoint(path, self.model, self.optimizer, self.position, self.identity)
        self.accelerator.wait_for_everyone()

    def save_weights(self, name: str) -> None:
        """Write the present weights as ``best`` or ``final``, on the main process."""
        if self.accelerator.is_main_process:
            save_weights(getattr(self.folder, name), self.model, self.extras)
        self.accelerator.wait_for_everyone()

    def _train_epoch(self, journal: Journal, progress: Progress, clock: "_Clock") -> Divergence | None:
        config, position = self.config, self.position
        device, rank = self.accelerator.device, self.accelerator.process_index
        batches = self.order.batches(position.epoch)[position.batch :]
        shares = [share(batch, rank, self.accelerator.num_processes) for batch in batches]
        images = self._images("train", position.epoch)
        self.prepared.train()
        clock.start()
        for batch, pixels_labels in zip(batches, load_batches(images, shares, config.num_workers, device)):
            rate = self._step(len(batch), pixels_labels, journal)
            is_last = position.batch == self.order.steps_per_epoch
            saves = config.checkpoint_every > 0 and position.step % config.checkpoint_every == 0
            if is_last or saves or position.step % config.log_every == 0:
                diverged = journal.look(position)
                position.epoch_seconds += clock.lap()
                if diverged is not None:
                    return diverged
            if saves and not is_last:
                self.save()
                clock.start()
            progress.step(clock.pulse(journal.loss, rate))
        return None

    def _step(self, batch_size: int, batch: tuple[torch.Tensor, torch.Tensor], journal: Journal) -> float:
        position, accelerator = self.position, self.accelerator
        rate = learning_rate(self.config, position.step, self.order.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        reseed(derived_seed(self.config.seed, "step", position.step, accelerator.process_index))
        weight = len(batch[1]) * accelerator.num_processes / batch_size
        with readable_failure(self.model, batch[0]):
            values = take_step(
                self.prepared, self.prepared_optimizer, batch, weight, self.config, accelerator
            )
        position.step += 1
        position.batch += 1
        journal.note(values, position.step, batch_size, rate)
        return rate

    def _measured(self, started: float) -> EpochRecord:
        position = self.position
        result = evaluate(self.model, self._images("validation", 0), self.config, self.accelerator)
        return EpochRecord(
            epoch=position.epoch + 1,
            step=position.step,
            train_loss=position.epoch_loss / position.epoch_images,
            train_accuracy=position.epoch_correct / position.epoch_images,
            validation_loss=result.loss,
            validation_accuracy=result.accuracy,
            validation_top5=result.top5,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            images_per_second=position.epoch_images / position.epoch_seconds,
            seconds=position.epoch_seconds + time.perf_counter() - started,
        )

    def _finish_epoch(self, record: EpochRecord, journal: Journal) -> None:
        is_best = record.validation_accuracy > self.position.best_accuracy
        self.position = Position(
            epoch=record.epoch,
            step=record.step,
            best_accuracy=max(record.validation_accuracy, self.position.best_accuracy),
        )
        journal.epoch(record)
        # If the process dies between these two, the epoch is repeated, with the same result.
        if is_best:
            self.save_weights("best")
        self.save()

    def _images(self, split: str, epoch: int) -> SeededImages:
        vary = partial(augmented, flip=getattr(self.data, "mirrors", False))
        return SeededImages(
            getattr(self.data, split),
            split,
            len(self.data.classes),
            self.config.seed,
            epoch,
            vary if self.config.augment != "none" and split == "train" else None,
        )


class _Clock:
    """Times a session, for speeds and for the time that is left."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.first_step = training.position.step
        self.began = self.mark = time.perf_counter()
        self.paused = 0.0

    def start(self) -> None:
        self.mark = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        seconds, self.mark = now - self.mark, now
        return seconds

    def pause(self, seconds: float) -> None:
        self.paused += seconds

    def pulse(self, loss: float | None, rate: float) -> Pulse:
        training, position = self.training, self.training.position
        steps = position.step - self.first_step
        seconds = time.perf_counter() - self.began
        return Pulse(
            step=position.step,
            total_steps=training.total_steps,
            epoch=position.epoch + 1,
            epochs=training.config.epochs,
            loss=loss,
            learning_rate=rate,
            images_per_second=steps * training.config.batch_size / max(seconds - self.paused, 1e-9),
            seconds_left=(training.total_steps - position.step) * seconds / steps,
        )
