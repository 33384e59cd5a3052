"""The losses of a run: gathered from the device now and then, checked, kept and logged."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from convscope.checkup.observed.run import Percentiles
from convscope.train.keeping.checkpoint import Position
from convscope.train.keeping.folder import RunFolder
from convscope.train.keeping.log import Log, LogWriter, as_entry
from convscope.train.run import Divergence, EpochRecord, Measurement, StepRecord
from convscope.train.running.engine import summed
from convscope.train.telling.trackers import Trackers

if TYPE_CHECKING:
    from accelerate import Accelerator


class Journal:
    """Keeps a run's records and writes them to its log, on the main process.

    The numbers of a step stay on the device until :meth:`look`, since reading one makes the host wait.

    Args:
        folder: the run's.
        accelerator: sums over processes; only its main process writes.
        log: what the run's earlier sessions left.

    Attributes:
        trackers: are told the same, if there are any.

    Raises:
        ConvscopeError: the log can't be written.
    """

    def __init__(self, folder: RunFolder, accelerator: "Accelerator", log: Log) -> None:
        self.accelerator = accelerator
        self.trackers: Trackers | None = None
        self.log = log
        self._pending: list[tuple[Tensor, int, int, float]] = []
        self._writer = LogWriter(folder.log, fresh=log == Log()) if accelerator.is_main_process else None

    @property
    def loss(self) -> float | None:
        """The newest known loss."""
        return self.log.steps[-1].loss if self.log.steps else None

    @property
    def is_behind(self) -> bool:
        """Whether there are steps whose numbers haven't been read yet."""
        return bool(self._pending)

    def start(self, facts: dict[str, Any]) -> None:
        """Log what the run is."""
        self.log.start = facts
        self._write("start", [facts])

    def note(self, values: Tensor, step: int, num_images: int, rate: float) -> None:
        """Note what :func:`convscope.train.running.step.take_step` returned for a batch of ``num_images``."""
        self._pending.append((values, step, num_images, rate))

    def look(self, position: Position) -> Divergence | None:
        """Read the noted numbers, add them to the epoch's sums and log them.

        Returns:
            The first step whose loss isn't finite; nothing from it on is added or kept.
        """
        if not self._pending:
            return None
        pending, self._pending = self._pending, []
        numbers = summed(torch.stack([values for values, *_ in pending]), self.accelerator).tolist()
        records = []
        diverged = None
        for (total_loss, right), (_, step, num_images, rate) in zip(numbers, pending):
            loss = total_loss / self.accelerator.num_processes
            if not math.isfinite(loss):
                diverged = Divergence(step, position.epoch + 1, loss, rate)
                break
            position.epoch_loss += loss * num_images
            position.epoch_correct += int(right)
            position.epoch_images += num_images
            records.append(StepRecord(step, position.epoch + 1, loss, right / num_images, rate))
        self.log.steps += records
        self._write("step", [as_entry(record) for record in records])
        if self.trackers is not None:
            self.trackers.step(records)
        return diverged

    def epoch(self, record: EpochRecord) -> None:
        """Keep and log an epoch."""
        self.log.epochs.append(record)
        self._write("epoch", [as_entry(record)])
        if self.trackers is not None:
            self.trackers.epoch(record)

    def measurement(self, record: Measurement) -> None:
        """Keep and log a measurement inside an epoch."""
        self.log.measurements.append(record)
        self._write("measurement", [as_entry(record)])

    def percentiles(self, rows: list[Percentiles], epoch: int) -> None:
        """Keep and log what the layers' percentiles were over an epoch."""
        self.log.percentiles[epoch] = rows
        self._write("percentiles", [{"epoch": epoch, **dataclasses.asdict(row)} for row in rows])

    def end(self, diverged: Divergence | None) -> None:
        """Log the end of the run."""
        self.log.ended, self.log.diverged = True, diverged
        self._write("end", [{"diverged": as_entry(diverged) if diverged else None}])

    def close(self) -> None:
        """Close the log, and let the trackers write what they have."""
        if self._writer is not None:
            self._writer.close()
        if self.trackers is not None:
            self.trackers.close()

    def _write(self, kind: str, entries: list[dict[str, Any]]) -> None:
        if self._writer is not None:
            self._writer.write(kind, entries)
