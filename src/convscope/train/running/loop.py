"""The loop of a run: epochs of steps, a measurement after each, checkpoints, resumption."""

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.core.seeds import derived_seed
from convscope.train.config import RESUMABLE, TrainConfig
from convscope.train.feeding.batches import Batch, ImageSets, LoadersGoneError, SeededImages, load_batches
from convscope.train.feeding.feed import Feed
from convscope.train.feeding.order import Order, reseed, share
from convscope.train.keeping.checkpoint import (
    Identity,
    Position,
    load_checkpoint,
    save_checkpoint,
    save_weights,
)
from convscope.train.keeping.folder import RunFolder
from convscope.train.keeping.journal import Journal
from convscope.train.learning.learner import Learner
from convscope.train.learning.schedule import learning_rate, plateau, warmup_steps
from convscope.train.run import Divergence, EpochRecord
from convscope.train.running.accumulation import check_accumulation
from convscope.train.running.callbacks import Callbacks
from convscope.train.running.clock import Clock
from convscope.train.running.diverging import Diverging, located, unsound
from convscope.train.running.engine import share_buffers
from convscope.train.running.epoch import measured_epoch, measured_within
from convscope.train.running.preflight import readable_failure
from convscope.train.running.step import take_step
from convscope.train.running.stopping import Stopping
from convscope.train.running.watched import Watched
from convscope.train.subject import Subject
from convscope.train.telling.progress import Progress

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

    Attributes:
        scores: which of the network's outputs is trained, in words; empty if it has one.

    Raises:
        ConvscopeError: the settings don't fit the network or the data.
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
        self.model, self.extras = subject.model, subject.extras
        self.data = data
        self.feed = Feed(data, config)
        self.config = config
        self.accelerator = accelerator
        self.folder = folder
        self.position = Position()
        self.stopping = Stopping()
        self.scores = ""
        self.order = Order(len(data.train), config.batch_size, accelerator.num_processes, config.seed)
        check_accumulation(config, accelerator.num_processes)
        self.learner = Learner(subject.model, prepared, config, accelerator.device)
        settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in RESUMABLE}
        frozen = [name for name, each in subject.model.named_parameters() if not each.requires_grad]
        self.identity = Identity(
            subject.name, data.name, len(data.train), self.order.steps_per_epoch, list(data.classes),
            settings, frozen,
        )  # fmt: skip

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.config.epochs * self.order.steps_per_epoch

    def load(self) -> None:
        """Go to the folder's checkpoint.

        Raises:
            ConvscopeError: it is damaged, doesn't fit, or is further than this run goes.
        """
        position = load_checkpoint(self.folder.checkpoint, self.learner, self.identity)
        if position.step > self.total_steps:
            raise ConvscopeError(
                f"checkpoint {str(self.folder.checkpoint)!r} after {position.step} steps",
                f"at most {self.total_steps}, the whole run with epochs={self.config.epochs}",
                "give as many epochs as are done, or more",
            )
        self.position = position

    def run(self, journal: Journal, progress: Progress, callbacks: Callbacks) -> Divergence | None:
        """Train to the end, from the present position; return where the run diverged, if it did."""
        clock = Clock(self.config, self.total_steps, self.position.step)
        self.watched = Watched(
            self.model, self.total_steps, journal.log.percentiles.values(), self.position.step
        )
        with self.learner.attached():
            try:
                return self._train_epochs(journal, progress, callbacks, clock)
            except LoadersGoneError:
                if self.stopping.received is None or self.accelerator.num_processes > 1:
                    raise
                return self._stop_between_steps(journal, clock)

    def _stop_between_steps(self, journal: Journal, clock: Clock) -> Divergence | None:
        """Save and end a run whose loading processes were stopped, too: while it trained or measured."""
        if journal.is_behind:
            self.position.epoch_seconds += clock.lap()
        diverged = journal.look(self.position) or unsound(self, journal.loss)
        if diverged is None:
            self.save()
            self.stopping.end(self)
        return diverged

    def save(self) -> None:
        """Write a checkpoint of the present position, on the main process."""
        if self.accelerator.is_main_process:
            save_checkpoint(self.folder.checkpoint, self.learner, self.position, self.identity)
        self.accelerator.wait_for_everyone()

    def save_weights(self, path: Path) -> None:
        """Write the present weights, on the main process."""
        if self.accelerator.is_main_process:
            save_weights(path, self.model, self.extras)
        self.accelerator.wait_for_everyone()

    def _train_epochs(
        self, journal: Journal, progress: Progress, callbacks: Callbacks, clock: Clock
    ) -> Divergence | None:
        while self.position.epoch < self.config.epochs:
            diverged = self._train_epoch(journal, progress, callbacks, clock)
            if diverged is not None:
                return diverged
            started = time.perf_counter()
            share_buffers(self.model, self.accelerator)
            if (diverged := unsound(self, journal.loss)) is not None:
                return diverged
            journal.percentiles(self.watched.news(), self.position.epoch + 1)
            record = measured_epoch(self, started)
            callbacks.after_epoch(self.model, record.epoch)
            self._finish_epoch(record, journal)
            progress.epoch(record)
            clock.pause(time.perf_counter() - started)
            if self.stopping.agreed(self.accelerator, looking=True):
                self.stopping.end(self)
        return None

    def _train_epoch(
        self, journal: Journal, progress: Progress, callbacks: Callbacks, clock: Clock
    ) -> Divergence | None:
        config, position = self.config, self.position
        device, rank = self.accelerator.device, self.accelerator.process_index
        batches = self.order.batches(position.epoch)[position.batch :]
        shares = [share(batch, rank, self.accelerator.num_processes) for batch in batches]
        images = self.images("train", position.epoch)
        self.learner.prepared.train()
        clock.start()
        if self._owes_measurement(journal):
            self._measure_within(journal, clock)
        loaded = load_batches(images, shares, config.num_workers, device)
        for batch, pixels_labels in zip(batches, loaded):
            try:
                with self.watched.step(position.step):
                    values, rate = self.take(len(batch), pixels_labels)
            except Diverging as found:
                return journal.look(position) or found.located(self, pixels_labels)
            journal.note(values, position.step, len(batch), rate)
            callbacks.after_step(self.model, position.step)
            is_last = position.batch == self.order.steps_per_epoch
            saves = config.checkpoint_every > 0 and position.step % config.checkpoint_every == 0
            looks = is_last or saves or position.step % config.log_every == 0
            stops = not is_last and self.stopping.agreed(self.accelerator, looking=looks)
            if looks or stops:
                diverged = journal.look(position)
                position.epoch_seconds += clock.lap()
                if diverged is not None:
                    return located(self, diverged)
            if (saves or stops) and not is_last:
                if (diverged := unsound(self, journal.loss)) is not None:
                    return diverged
                self.save()
                clock.leave_out()
            if not stops and self._owes_measurement(journal):
                self._measure_within(journal, clock)
            progress.step(clock.pulse(position, journal.loss, rate))
            if stops:
                self.stopping.end(self)
        return None

    def _owes_measurement(self, journal: Journal) -> bool:
        """Whether ``evaluate_every`` asks for one here that isn't there: also where a run was resumed."""
        every, position, known = self.config.evaluate_every, self.position, journal.log.measurements
        if every == 0 or position.step % every or position.batch in (0, self.order.steps_per_epoch):
            return False
        return not known or known[-1].step != position.step

    def _measure_within(self, journal: Journal, clock: Clock) -> None:
        self.position.epoch_seconds += clock.lap()
        journal.measurement(measured_within(self))
        clock.leave_out()

    def take(self, batch_size: int, batch: Batch) -> tuple[Tensor, float]:
        """Take the next step.

        Args:
            batch_size: images in it, over all processes.
            batch: this process's share.

        Returns:
            what :func:`take_step` says, and the learning rate.
        """
        position, accelerator = self.position, self.accelerator
        rate = self.rate(position.step)
        self.learner.set_rate(rate)
        reseed(derived_seed(self.config.seed, "step", position.step, accelerator.process_index))
        with readable_failure(self.model, batch[0]):
            values = take_step(self.learner, batch, batch_size, accelerator.num_processes, position.step + 1)
        position.step += 1
        position.batch += 1
        return values, rate

    def rate(self, step: int) -> float:
        """Return the learning rate of the update that a step (counted from 0) belongs to, in this epoch."""
        return learning_rate(self.config, step, self.order.steps_per_epoch, self.position.falls)

    def images(self, split: str, epoch: int) -> SeededImages:
        """Return the images of a split as an epoch (from 0) sees them."""
        return self.feed.images(split, epoch)

    def _finish_epoch(self, record: EpochRecord, journal: Journal) -> None:
        before, config = self.position, self.config
        is_better = record.validation_accuracy > before.best_accuracy
        is_best = before.is_best(record.validation_accuracy, record.validation_loss)
        waited, falls = before.waited, before.falls
        if config.schedule == "plateau" and record.step > warmup_steps(config, self.order.steps_per_epoch):
            waited, falls = plateau(config.patience_epochs, waited, falls, is_better=is_better)
        self.position = Position(
            record.epoch,
            step=record.step,
            best_accuracy=record.validation_accuracy if is_best else before.best_accuracy,
            best_loss=record.validation_loss if is_best else before.best_loss,
            waited=waited,
            falls=falls,
        )
        journal.epoch(record)
        # If the process dies between these two, the epoch is repeated, with the same result.
        if is_best:
            self.save_weights(self.folder.best)
        if record.epoch in config.keep_epochs:
            self.save_weights(self.folder.epoch(record.epoch))
        self.save()
