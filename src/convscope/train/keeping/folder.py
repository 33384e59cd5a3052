"""The files of a run, and a run read back from them."""

from dataclasses import dataclass
from pathlib import Path

from convscope.core.errors import ConvscopeError
from convscope.train.config import TrainConfig
from convscope.train.keeping.log import Log, read_log
from convscope.train.measuring.confusion import FILE_NAME, load_confusion
from convscope.train.run import Run, thinned
from convscope.train.running.watched import joined


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its files.

    Attributes:
        path: the folder; its name is the run's.
    """

    path: Path

    @property
    def log(self) -> Path:
        """Lines of JSON, as the run went."""
        return self.path / "log.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the session that trains; gone after it."""
        return self.path / ".lock"

    @property
    def checkpoint(self) -> Path:
        """What resuming needs, as of the last checkpoint."""
        return self.path / "checkpoint.safetensors"

    @property
    def best(self) -> Path:
        """Weights of the best epoch, under their plain names."""
        return self.path / "best.safetensors"

    @property
    def final(self) -> Path:
        """Weights at the end, under their plain names."""
        return self.path / "final.safetensors"

    @property
    def average(self) -> Path:
        """The average of the weights after the last epoch, with its own statistics, under plain names."""
        return self.path / "average.safetensors"

    def epoch(self, number: int) -> Path:
        """Weights after an epoch (from 1), under their plain names."""
        return self.path / f"epoch-{number}.safetensors"

    @property
    def confusion(self) -> Path:
        """Which classes the network of the best epoch took for which."""
        return self.path / FILE_NAME

    @property
    def holds_run(self) -> bool:
        """Whether there is something to resume."""
        return self.checkpoint.exists()

    def remove_leftovers(self) -> None:
        """Remove the unfinished files of a process that was killed while writing one of these."""
        names = (self.log.name, self.confusion.name, *(file.name for file in self._tensors))
        for name in (*names, "epoch-*.safetensors"):
            # The temporary names that whole_file gives.
            for leftover in self.path.glob(f".{name}.*"):
                leftover.unlink(missing_ok=True)

    @property
    def _tensors(self) -> tuple[Path, ...]:
        return self.checkpoint, self.best, self.final, self.average


def free_folder(network: str, data: str, parent: Path = Path("runs")) -> Path:
    """Return a folder for a new run, ``runs/NETWORK-DATA``, with a number if that holds a run already."""
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in f"{network}-{data}").strip("-.")
    number = 1
    while (path := parent / (plain if number == 1 else f"{plain}-{number}")).exists():
        number += 1
    return path


def run_from_log(folder: RunFolder, log: Log) -> Run:
    """Return the run that a log tells of."""
    start = log.start
    seconds = sum(record.seconds for record in log.epochs)
    # Every epoch has equally many images, so the mean speed is the harmonic mean of the epochs' speeds.
    train_time = sum(1 / record.images_per_second for record in log.epochs)
    return Run(
        name=folder.path.name,
        network=start["network"],
        data=start["data"],
        classes=tuple(start["classes"]),
        config=TrainConfig(**start["config"]),
        epochs=tuple(log.epochs),
        steps=thinned(log.steps),
        seconds=seconds,
        images_per_second=len(log.epochs) / train_time if log.epochs else 0.0,
        validation_accuracy=log.epochs[-1].validation_accuracy if log.epochs else None,
        checkpoint=_existing(folder.checkpoint),
        weights=_existing(folder.final) if log.ended and log.diverged is None else None,
        best_weights=_existing(folder.best),
        diverged=log.diverged,
        measurements=tuple(log.measurements),
        percentiles=joined(log.percentiles.values()),
        average_weights=_existing(folder.average),
        confusion=load_confusion(folder.confusion) if folder.confusion.exists() else None,
        num_train=start.get("num_train"),
        num_validation=start.get("num_validation"),
    )


def read_run(path: str | Path) -> Run:
    """Return the run whose files are in a folder, finished or not.

    Args:
        path: the run's folder.

    Raises:
        ConvscopeError: the folder has no log of a run.
    """
    folder = RunFolder(Path(path))
    log = read_log(folder.log)
    try:
        return run_from_log(folder, log)
    except (KeyError, TypeError) as error:
        raise ConvscopeError(
            f"{folder.log} doesn't say what was trained",
            "a log that begins with a run's settings",
            "train again",
        ) from error


def _existing(path: Path) -> str | None:
    return str(path) if path.exists() else None
