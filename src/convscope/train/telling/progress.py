"""How a running training tells others where it is; nothing here draws.

The loop calls a :class:`Progress` on the main process only. What is shown, and whether, is for the caller
to say (a bar on a terminal, a line per epoch in a file, nothing).
"""

from dataclasses import dataclass
from typing import Protocol

from convscope.train.run import EpochRecord
from convscope.train.telling.forecast import Forecast


@dataclass(frozen=True)
class Pulse:
    """Where a run is after an optimizer step.

    Attributes:
        step: optimizer steps so far.
        total_steps: optimizer steps of the whole run.
        epoch: the running epoch, from 1.
        epochs: epochs of the whole run.
        loss: the newest known loss (nats); None before the first look. Looks are ``log_every`` steps apart.
        learning_rate: rate of the step.
        images_per_second: over this session's training so far.
        seconds_left: estimate for the remaining steps at that speed, evaluations included as they have been
            so far.
        seconds_left_out: of this session, spent inside epochs on checkpoints and measurements, which belong
            to no step.
    """

    step: int
    total_steps: int
    epoch: int
    epochs: int
    loss: float | None
    learning_rate: float
    images_per_second: float
    seconds_left: float
    seconds_left_out: float = 0.0


class Progress(Protocol):
    """Receives the course of a run. Exceptions from these methods end the run."""

    def start(self, total_steps: int, first_step: int, epochs: int) -> None:
        """Training begins after ``first_step`` of ``total_steps`` steps (above 0 for a resumed run)."""

    def forecast(self, forecast: Forecast) -> None:
        """What the run will take: told at the start, and again with times after its first steps."""

    def step(self, pulse: Pulse) -> None:
        """An optimizer step is done. Called often: return quickly."""

    def epoch(self, record: EpochRecord) -> None:
        """An epoch and its evaluation are done."""

    def stop(self) -> None:
        """The run is over: finished, diverged, failed or interrupted. Called once after ``start``."""


class NoProgress:
    """Shows nothing."""

    def start(self, total_steps: int, first_step: int, epochs: int) -> None:
        """Do nothing."""

    def forecast(self, forecast: Forecast) -> None:
        """Do nothing."""

    def step(self, pulse: Pulse) -> None:
        """Do nothing."""

    def epoch(self, record: EpochRecord) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""
