"""A comparison at work: what is left to run is run, on this machine's share, and everything is compared."""

import json
import platform
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import torch

from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_file
from convscope.core.result import page_of
from convscope.core.units import format_bytes
from convscope.train.comparing.asking import Asked
from convscope.train.comparing.collecting import collected, read_ended
from convscope.train.comparing.course import ComparingProgress, Course, NoComparingProgress
from convscope.train.comparing.forecast import (
    ComparisonForecast,
    alike,
    distinct,
    like,
    makespan,
    run_seconds,
)
from convscope.train.comparing.machine import (
    available_memory,
    default_threads,
    free_disk,
    layout,
    machine_name,
    place,
)
from convscope.train.comparing.pool import Pool, measure
from convscope.train.comparing.ranks import together
from convscope.train.comparing.reading import RESULT, read_comparison
from convscope.train.comparing.record import known_record, locked, merged_record, write_record
from convscope.train.comparing.result import Comparison, Made
from convscope.train.comparing.running import FAILURE, Feed
from convscope.train.comparing.table import PlannedRun, Table

PAGE = "index.html"


class Work:
    """One call of :func:`~convscope.train.comparing.request.compare`.

    Args:
        given: what is to be compared and how.
        progress: is told the course, on the first rank.

    Raises:
        ConvscopeError: the folder holds another comparison, or the layout isn't possible.
    """

    def __init__(self, given: Asked, progress: ComparingProgress) -> None:
        self.given, self.out = given, given.out
        self.table = given.experiment.table
        self.at = place()
        self.progress = progress if self.at.rank == 0 else NoComparingProgress()
        _check_json(self.table)
        self.runs = self.table.runs(self.out)
        self.known = known_record(self.out)
        self.threads = self._threads()
        self.record, self.left_out = merged_record(self.out, self.table, self.threads)
        self.layout = layout(given.execution.processes, self.threads, len(self.runs), self.at)
        self.feed = Feed(self.table.data, self.table.image_size)

    def _threads(self) -> int:
        threads = self.given.execution.threads
        if threads is None:
            return self.known.threads if self.known else default_threads(len(self.runs), self.at)
        if isinstance(threads, bool) or threads < 1:
            raise ConvscopeError(f"threads={threads!r}", "a whole number from 1", "correct it")
        return threads

    def forecast(self) -> ComparisonForecast:
        """Measure what the runs that are left will take."""
        return self._forecast(self._todo())

    def done(self) -> Comparison:
        """Run what is left to run, and compare."""
        with ExitStack() as stack:
            if self.at.size == 1:
                stack.enter_context(locked(self.out))
            wait = stack.enter_context(together(self.at))
            todo = self._todo()
            wait()  # nobody begins before everybody knows what is left
            if self.at.rank == 0:
                self._begin(todo)
            wait()
            self._run(todo[self.at.rank :: self.at.size])
            wait()
            # The first rank makes what is kept in the runs' folders; the others read it.
            made = self._made(anew=bool(todo))
            if self.at.rank == 0:
                found = self._compared(made)
            wait()
            return found if self.at.rank == 0 else self._compared(made)

    def _todo(self) -> list[PlannedRun]:
        """The runs that haven't ended; those that failed are tried again."""
        return [planned for planned in self.runs if not read_ended(planned).has_ended]

    def _begin(self, todo: Sequence[PlannedRun]) -> None:
        for name in self.left_out:
            self.progress.note(f"arm {name!r} is in {self.out} and not in the table: ignored")
        if todo:
            found = self._forecast(todo)
            self.progress.forecast(found)
            for pair in found.alike:
                self.progress.note(
                    f"arms {pair[0]!r} and {pair[1]!r} compute the same: does the network use what differs?"
                )
            _check_room(found, self.out)
        write_record(self.out, self.record)

    def _run(self, todo: Sequence[PlannedRun]) -> None:
        for planned in todo:
            (planned.folder / FAILURE).unlink(missing_ok=True)
        mine = self.runs if self.at.size == 1 else todo
        states = [read_ended(planned).state for planned in mine]
        course = Course(len(mine), len(mine) - len(todo), diverged=states.count("diverged"))
        try:
            Pool(self.layout, self.feed, course).run(todo, self.progress)
        finally:
            self.progress.stop()

    def _compared(self, made: Made) -> Comparison:
        notes = [f"arm {name!r} lies in the folder and isn't in the table" for name in self.left_out]
        found = collected(self.given.experiment, self.out, made, notes, self.runs)
        if self.at.rank == 0:
            _write(self.out / RESULT, found.to_json(indent=1) + "\n")
            _write(self.out / PAGE, page_of(found) or "")
        return found

    def _made(self, anew: bool) -> Made:
        """How the runs were made; a call that only reads them doesn't change that."""
        if not anew and (self.out / RESULT).exists():
            with suppress(ConvscopeError):  # one of an earlier version
                return read_comparison(self.out).made
        command = self.given.execution.command or "cs.compare(...)"
        versions = {
            "convscope": version("convscope"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        processes = max(self.layout.processes, 1) * self.at.size
        written = datetime.now().astimezone().strftime("%d %B %Y, %H:%M %Z")
        return Made(command, machine_name(), versions, processes, self.threads, written)

    def _forecast(self, todo: Sequence[PlannedRun]) -> ComparisonForecast:
        probes = measure(distinct(todo), self.feed, self.layout) if todo else []
        matched = [(planned, like(planned.arm, probes)) for planned in todo]
        found = [(planned, probe) for planned, probe in matched if probe is not None]
        processes = max(self.layout.processes, 1) * self.at.size
        seconds = [run_seconds(planned.arm, probe) for planned, probe in found]
        steps = sum(planned.arm.config.epochs * probe.steps_per_epoch for planned, probe in found)
        memory = max((probe.memory_bytes for _, probe in probes), default=0)
        # The images of a size are read once by each process, and here no further process begins.
        begun = (
            max((probe.process_seconds for _, probe in probes), default=0.0) if self.layout.processes else 0.0
        )
        return ComparisonForecast(
            runs=len(self.runs),
            runs_left=len(todo),
            steps_left=steps,
            seconds=begun + makespan(seconds, processes),
            processes=processes,
            threads=self.threads,
            disk_bytes=sum(probe.disk_bytes for _, probe in found),
            free_bytes=free_disk(self.out),
            memory_bytes=memory * min(processes, max(len(todo), 1)),
            available_bytes=available_memory(),
            probes=tuple(probe for _, probe in probes),
            start_seconds=begun,
            alike=alike(probes),
        )


def _write(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _check_room(found: ComparisonForecast, out: Path) -> None:
    """Refuse runs that the disk surely has no room for."""
    if found.disk_bytes > found.free_bytes:
        raise ConvscopeError(
            f"{found.runs_left} runs that need {format_bytes(found.disk_bytes)} in {str(out)!r}",
            f"at most the {format_bytes(found.free_bytes)} that are free",
            "make room, or choose a folder on another disk",
        )


def _check_json(table: Table) -> None:
    """Refuse options that can't be written down, and so couldn't be compared with when going on."""
    for arm in table.arms:
        try:
            json.dumps(arm.identity())
        except (TypeError, ValueError) as error:
            raise ConvscopeError(
                f"arm {arm.name!r} with options {dict(arm.options)!r}",
                "numbers, texts, truth values and lists of them",
                "give what the network's builder can make the rest from",
            ) from error
