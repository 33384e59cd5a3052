"""The log of a run: one JSON object a line, written as the run goes on.

Kinds of lines: ``start`` (what the run is), ``step``, ``epoch`` and ``measurement`` (the records of
:mod:`convscope.train.run`), ``percentiles`` (of a layer, over one epoch), ``end`` (``diverged`` is null, or
where it did). A line counts once it ends with a newline, so a process killed while writing leaves a log that
can still be read.
"""

import dataclasses
import errno
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from convscope.checkup.observed.run import Percentiles
from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_file
from convscope.core.result import plain
from convscope.train.run import Divergence, EpochRecord, Measurement, StepRecord

_RECORDS: dict[str, type[Any]] = {"step": StepRecord, "epoch": EpochRecord, "measurement": Measurement}
_NOT_FINITE = float("nan")


@dataclass
class Log:
    """What a log says.

    Attributes:
        start: the fields of the first line; empty if the log has none yet.
        steps: records of the steps, in order.
        epochs: records of the finished epochs, in order.
        measurements: those inside epochs, in order.
        percentiles: of each layer, by epoch.
        ended: whether the run came to its end (diverged runs did).
        diverged: where it diverged, or None.
    """

    start: dict[str, Any] = field(default_factory=dict)
    steps: list[StepRecord] = field(default_factory=list)
    epochs: list[EpochRecord] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    percentiles: dict[int, list[Percentiles]] = field(default_factory=dict)
    ended: bool = False
    diverged: Divergence | None = None


def read_log(path: str | Path) -> Log:
    """Return what a run's log says; an unfinished last line is left out.

    Raises:
        ConvscopeError: there is no such file, or a line isn't one of a log's.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConvscopeError(
            f"no readable log {str(path)!r} ({error.strerror})", "a run's log.jsonl", "give a run's folder"
        ) from error
    log = Log()
    for number, line in enumerate(text.split("\n")[:-1], 1):
        try:
            _read_line(log, json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ConvscopeError(
                f"{path}, line {number}: {line[:60]!r}", "a line of a run's log", "restore or delete the file"
            ) from error
    return log


def truncate_log(path: Path, step: int, epoch: int) -> None:
    """Keep of a log what had happened at a checkpoint, so that resuming writes no line twice.

    Args:
        path: the log; nothing is done if there is none.
        step: optimizer steps at the checkpoint.
        epoch: finished epochs at the checkpoint.
    """
    if not path.exists():
        return
    read_log(path)  # complains of a log that isn't one, before anything is lost
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
        entry = json.loads(line)
        in_epoch = entry.get("epoch", 0) <= epoch
        limit = {
            "start": True,
            "step": entry.get("step", 0) <= step,
            "measurement": entry.get("step", 0) <= step,
            "epoch": in_epoch,
            "percentiles": in_epoch,
        }
        if limit.get(entry["kind"], False):
            kept.append(line + "\n")
    with whole_file(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


class LogWriter:
    """Appends lines to a log.

    Args:
        path: the file; made if there is none.
        fresh: begin with an empty file.

    Raises:
        ConvscopeError: the file can't be written.
    """

    def __init__(self, path: Path, fresh: bool = False) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without a buffer, so that what couldn't be written isn't tried again at the end.
            self._file = path.open("wb" if fresh else "ab", buffering=0)
        except OSError as error:
            raise ConvscopeError(
                f"output {str(path)!r} can't be written ({error.strerror})",
                "a folder that you may write to",
                "choose another one with --out",
            ) from error

    def write(self, kind: str, entries: list[dict[str, Any]]) -> None:
        """Write one line for each entry; all are in the file when this returns.

        Raises:
            ConvscopeError: the disk is full, or the file is gone.
        """
        lines = (json.dumps({"kind": kind, **plain(entry)}, allow_nan=False) for entry in entries)
        rest = memoryview("".join(line + "\n" for line in lines).encode())
        try:
            if os.fstat(self._file.fileno()).st_nlink == 0:
                raise FileNotFoundError(errno.ENOENT, "somebody removed it during the run")
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise ConvscopeError(
                f"log {str(self._path)!r} can't be written ({error.strerror})",
                "room on the disk, and the run's folder where it was",
                "make room, then resume: the last whole checkpoint is still there"
                if self._path.parent.exists()
                else "leave the folder alone while the run goes on, and start again",
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def as_entry(record: StepRecord | EpochRecord | Measurement | Divergence) -> dict[str, Any]:
    """Return a record's fields."""
    return dataclasses.asdict(record)


def _read_line(log: Log, entry: dict[str, Any]) -> None:
    kind = entry.pop("kind")
    if kind == "start":
        log.start = entry
    elif kind == "step":
        log.steps.append(_record(StepRecord, entry))
    elif kind == "epoch":
        log.epochs.append(_record(EpochRecord, entry))
    elif kind == "measurement":
        log.measurements.append(_record(Measurement, entry))
    elif kind == "percentiles":
        log.percentiles.setdefault(entry["epoch"], []).append(_percentiles(entry))
    elif kind == "end":
        diverged = entry["diverged"]
        log.ended, log.diverged = True, _record(Divergence, diverged) if diverged else None
    else:
        raise ValueError(kind)


def _percentiles(entry: dict[str, Any]) -> Percentiles:
    for name, kind in (("epoch", int), ("path", str), ("channel", int), ("of", str)):
        if not isinstance(entry[name], kind):
            raise TypeError(name)
    low, median, high = (
        tuple(_NOT_FINITE if value is None else float(value) for value in entry[name])
        for name in ("low", "median", "high")
    )
    return Percentiles(entry["path"], entry["channel"], entry["of"], tuple(entry["steps"]), low, median, high)


def _record(record_type: type[Any], entry: dict[str, Any]) -> Any:
    """A record whose numbers that JSON couldn't hold are NaN again, and whose lists are tuples."""
    optional = {each.name for each in dataclasses.fields(record_type) if "None" in str(each.type)}
    for each in dataclasses.fields(record_type):
        kinds, value = get_args(each.type) or (each.type,), entry.get(each.name, 0)
        numbers = int if each.name in ("step", "epoch") else int | float | None
        if {int, float} & set(kinds) and not isinstance(value, numbers):
            raise TypeError(each.name)
    lost = {name for name, value in entry.items() if value is None and name not in optional}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
    return record_type(**{**values, **dict.fromkeys(lost, _NOT_FINITE)})
