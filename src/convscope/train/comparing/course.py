"""How a comparison tells where it is; nothing here draws."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

from convscope.train.comparing.forecast import ComparisonForecast


@dataclass(frozen=True)
class Standing:
    """Where a comparison is.

    Attributes:
        done: runs that have ended, those of earlier sessions among them.
        total: runs of the table.
        diverged: how many of those that ended diverged.
        failed: how many couldn't be trained.
        running: share (0 to 1) of each run that is in progress, by name.
        seconds_left: estimate from this session's runs; None before there is one.
    """

    done: int
    total: int
    diverged: int
    failed: int
    running: Mapping[str, float]
    seconds_left: float | None


class ComparingProgress(Protocol):
    """Receives the course of a comparison, on one process."""

    def forecast(self, forecast: ComparisonForecast) -> None:
        """What the runs will take; called before the first, if any is left to run."""

    def note(self, text: str) -> None:
        """Something that a reader should know."""

    def standing(self, standing: Standing) -> None:
        """Where it is; called a few times a second."""

    def stop(self) -> None:
        """All runs have ended, or the comparison was interrupted."""


class NoComparingProgress:
    """Shows nothing."""

    def forecast(self, forecast: ComparisonForecast) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def standing(self, standing: Standing) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""


@dataclass
class Course:
    """Counts what has ended and what is running; may be told from several threads.

    Attributes:
        total: runs of the table.
        done: of them, those that ended in earlier sessions; counted on here.
        diverged: see :class:`Standing`.
    """

    total: int
    done: int
    diverged: int = 0
    failed: int = 0
    _shares: dict[str, float] = field(default_factory=dict)
    _first: dict[str, float] = field(default_factory=dict)
    _work: float = 0.0  # runs' worth done in this session
    _left: float = 0.0  # runs' worth left
    _began: float = field(default_factory=lambda: time.monotonic())
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self._left = float(self.total - self.done)

    def share(self, name: str, share: float) -> None:
        """A run is in progress."""
        with self._lock:
            before = self._shares.setdefault(name, share)
            if name not in self._first:
                self._first[name] = share
                self._left -= share
            else:
                self._work += share - before
                self._left -= share - before
            self._shares[name] = share

    def end(self, name: str, state: str) -> None:
        """A run has ended."""
        with self._lock:
            share = self._shares.pop(name, 0.0)
            self._left -= 1 - share
            self._work += 1 - share if state == "finished" else 0.0
            self.done += 1
            self.diverged += state == "diverged"
            self.failed += state == "failed"

    def standing(self) -> Standing:
        """Return where the comparison is."""
        with self._lock:
            seconds = time.monotonic() - self._began
            left = max(self._left, 0.0) * seconds / self._work if self._work > 0 else None
            running = dict(self._shares)
            return Standing(self.done, self.total, self.diverged, self.failed, running, left)
