"""A run told to experiment trackers: TensorBoard, trackio, wandb and whatever else accelerate knows.

TensorBoard's files are in ``OUT/tensorboard``; the others keep theirs where their own settings say. Logged
per step: ``train/loss``, ``train/accuracy``, ``train/learning_rate``; per epoch: ``validation/loss``,
``validation/accuracy``, ``validation/top5``, ``average/loss``, ``average/accuracy`` where there is one, and
``train/images_per_second``.

Limits: on resumption TensorBoard drops what it was told after the checkpoint; other trackers begin a new run.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from convscope.core.errors import ConvscopeError
from convscope.train.keeping.folder import RunFolder
from convscope.train.run import EpochRecord, StepRecord

if TYPE_CHECKING:
    from accelerate import Accelerator

TENSORBOARD = "tensorboard"


def check_trackers(names: Sequence[str]) -> None:
    """Check that there are such trackers and that their packages are installed.

    Raises:
        ConvscopeError: one isn't known, or isn't installed.
    """
    if not names:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    available = {str(getattr(name, "value", name)) for name in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise ConvscopeError(f"unknown tracker {name!r}", f"one of {known}", "choose one of them")
        if name not in available:
            extra = "'convscope[log]'" if name == TENSORBOARD else name.replace("_", "-")
            raise ConvscopeError(
                f"tracker {name!r} without its package", "it installed", f"run: pip install {extra}"
            )


class Trackers:
    """The trackers of one run.

    Args:
        names: as accelerate calls them; none: nothing is tracked.
        accelerator: tells them, on its main process.
        folder: the run's.
        facts: the first line of its log: its settings, and the step that it goes on from.
    """

    def __init__(
        self, names: Sequence[str], accelerator: "Accelerator", folder: RunFolder, facts: dict[str, Any]
    ) -> None:
        self._accelerator = accelerator
        settings = {name: value for name, value in facts.get("config", {}).items() if value is not None}
        for name in names:
            self._start(name, folder, settings, facts["from_step"])

    def step(self, records: Sequence[StepRecord]) -> None:
        """Tell of steps."""
        if not self._accelerator.trackers:
            return
        for record in records:
            values = {
                "train/loss": record.loss,
                "train/accuracy": record.accuracy,
                "train/learning_rate": record.learning_rate,
            }
            self._tell(values, record.step)

    def epoch(self, record: EpochRecord) -> None:
        """Tell of an epoch."""
        if not self._accelerator.trackers:
            return
        values = {
            "validation/loss": record.validation_loss,
            "validation/accuracy": record.validation_accuracy,
            "validation/top5": record.validation_top5,
            "average/loss": record.average_loss,
            "average/accuracy": record.average_accuracy,
            "train/images_per_second": record.images_per_second,
        }
        told = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
        self._tell(told, record.step)

    def close(self) -> None:
        """Let the trackers write what they have."""
        trackers, self._accelerator.trackers = self._accelerator.trackers, []
        for tracker in trackers:
            with _readable(f"tracker {tracker.name!r} can't end"):
                tracker.finish()

    def _tell(self, values: dict[str, float], step: int) -> None:
        with _readable("trackers can't be told of the run"):
            self._accelerator.log(values, step=step)

    def _start(self, name: str, folder: RunFolder, settings: dict[str, Any], step: int) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        kind = LOGGER_TYPE_TO_CLASS[name]
        with _readable(f"tracker {name!r} can't begin"):
            if name == TENSORBOARD:
                # What was told after the checkpoint is told again.
                tracker = kind(TENSORBOARD, str(folder.path), purge_step=step + 1)
            elif kind.requires_logging_directory:
                tracker = kind(folder.path.name, str(folder.path))
            else:
                tracker = kind(folder.path.name)
            tracker.start()
            if name != TENSORBOARD:  # its hyperparameters would be runs of their own beside this one
                tracker.store_init_configuration(settings)
        self._accelerator.trackers.append(tracker)


@contextmanager
def _readable(problem: str) -> Iterator[None]:
    """Turn a failure of the disk or the network into one line."""
    try:
        yield
    except OSError as error:
        raise ConvscopeError(
            f"{problem} ({error.strerror or error})",
            "room on the disk, and services that answer",
            "leave the tracker out, or mend that and resume: the last whole checkpoint is still there",
        ) from error
