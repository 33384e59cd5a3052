"""What a comparison's folder remembers of its table, so that going on with it stays the same comparison."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from convscope.core.errors import ConvscopeError
from convscope.core.files import nothing_begun
from convscope.train.comparing.running import read_json, write_json
from convscope.train.comparing.table import RUNS, Arm, Table
from convscope.train.config import TrainConfig

RECORD = "table.json"
_LOCK = ".lock"


@dataclass(frozen=True)
class Record:
    """The table of a folder.

    Attributes:
        data: reference of the images.
        image_size: of them; None: the network's input.
        threads: of every run: results of sums depend on it.
        arms: what makes each arm what it is, by name.
    """

    data: str
    image_size: list[int] | None
    threads: int
    arms: dict[str, Any]


def known_record(out: Path) -> Record | None:
    """Return what a folder remembers; None for a new one.

    Raises:
        ConvscopeError: it can't be read, or the folder holds runs without a table.
    """
    content = read_json(out / RECORD)
    if content is None:
        if (out / RUNS).exists():
            raise ConvscopeError(
                f"{str(out)!r} holds runs and no {RECORD}", "a comparison's folder", "choose another one"
            )
        return None
    try:
        known = Record(**content)
        for identity in known.arms.values():
            _flattened(identity)
        return known
    except (AttributeError, KeyError, TypeError) as error:
        raise ConvscopeError(
            f"{str(out / RECORD)!r} isn't a comparison's", "what an earlier comparison wrote", "restore it"
        ) from error


def merged_record(out: Path, table: Table, threads: int) -> tuple[Record, tuple[str, ...]]:
    """Return the record of a table, with the arms that the folder knew besides, and the names of those.

    Raises:
        ConvscopeError: the data or an arm that the folder knows has changed.
    """
    size = list(table.image_size) if table.image_size else None
    record = Record(table.data, size, threads, {arm.name: arm.identity() for arm in table.arms})
    known = known_record(out)
    if known is None:
        return record, ()
    for name in ("data", "image_size"):
        if getattr(known, name) != getattr(record, name):
            _refuse(out, f"{name} was {getattr(known, name)!r} and is {getattr(record, name)!r}")
    for name, identity in record.arms.items():
        if name in known.arms:
            _check_arm(out, name, known.arms[name], identity)
    left = tuple(name for name in known.arms if name not in record.arms)
    return replace(record, arms={**known.arms, **record.arms}), left


def write_record(out: Path, record: Record) -> None:
    """Write what a folder remembers."""
    write_json(out / RECORD, vars(record))


def _check_arm(out: Path, name: str, known: dict[str, Any], now: dict[str, Any]) -> None:
    # Settings that didn't exist when the folder was made had their default's meaning.
    defaults = Arm("", "", config=TrainConfig()).identity()["settings"]
    after = {**defaults, **_flattened(now)}
    # Folders of earlier versions didn't say how often was measured.
    before = {**defaults, "evaluate_every": after["evaluate_every"], **_flattened(known)}
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    if changed:
        told = (f"{key} was {before.get(key)!r} and is {after.get(key)!r}" for key in changed[:3])
        _refuse(out, f"arm {name!r} has changed: {', '.join(told)}")


def _flattened(identity: dict[str, Any]) -> dict[str, Any]:
    return {"network": identity["network"], **identity["settings"], **identity["options"]}


def _refuse(out: Path, what: str) -> None:
    raise ConvscopeError(
        f"{str(out)!r} holds another comparison: {what}",
        "the table that it was begun with, or one with arms or seeds added or left out",
        "choose another folder, or take the change back",
    )


def _opened(out: Path) -> IO[str]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        return (out / _LOCK).open("w")
    except OSError as error:
        raise ConvscopeError(
            f"output {str(out)!r} can't be written ({error.strerror})",
            "a folder that you may write to",
            "choose another one",
        ) from error


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold a folder, so that no second comparison works in it meanwhile; the system lets go at the end.

    Raises:
        ConvscopeError: another one holds it, or it can't be written.
    """
    with nothing_begun(out), _opened(out) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConvscopeError(
                f"another comparison is running in {str(out)!r}", "one at a time", "wait for it, or end it"
            ) from error
        try:
            yield
        except BaseException:
            if {entry.name for entry in out.iterdir()} == {_LOCK}:
                (out / _LOCK).unlink()
            raise
