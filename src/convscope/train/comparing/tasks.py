"""What a process does with one task; errors become part of the answer, so that other runs go on."""

import dataclasses
import gc
import time
from collections.abc import Callable
from typing import Any

import torch

from convscope.core.errors import ConvscopeError
from convscope.train.comparing.forecast import probe
from convscope.train.comparing.running import DataRefusedError, Feed, carry_out, note_failure
from convscope.train.comparing.table import Arm, PlannedRun
from convscope.train.telling.progress import NoProgress, Progress, Pulse

_EVERY_SECONDS = 0.5


class Teller(NoProgress):
    """Tells how much of a run is done, at most twice a second.

    Args:
        tell: takes the share, 0 to 1.
    """

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell = tell
        self._told = 0.0

    def start(self, total_steps: int, first_step: int, epochs: int) -> None:  # noqa: ARG002
        """Tell where the run begins."""
        self._tell(first_step / total_steps)

    def step(self, pulse: Pulse) -> None:
        """Tell where the run is, if that was told long enough ago."""
        now = time.monotonic()
        if now - self._told >= _EVERY_SECONDS:
            self._told = now
            self._tell(pulse.step / pulse.total_steps)


def carried_out(planned: PlannedRun, feed: Feed, threads: int, progress: Progress) -> dict[str, Any]:
    """Train a run and return its state: ``finished``, ``diverged``, or ``failed`` with an ``error``."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        run = carry_out(planned, feed, progress)
    except Exception as error:  # a network's own code may raise anything
        note_failure(planned.folder, told(error))
        return {"state": "failed", "error": told(error)}
    finally:
        torch.set_num_threads(before)
        gc.collect()
    return {"state": "finished" if run.diverged is None else "diverged"}


def measured(arm: Arm, feed: Feed, threads: int) -> dict[str, Any]:
    """Return what a few steps of an arm take as ``probe``, an ``error``, or what was ``refused``."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return {"probe": dataclasses.asdict(probe(arm, feed))}
    except ConvscopeError as error:
        of_data = isinstance(error, DataRefusedError)
        return {"refused": (error.given, error.expected, error.action), "of_data": of_data}
    except Exception as error:  # as above
        return {"error": told(error)}
    finally:
        torch.set_num_threads(before)
        gc.collect()


def told(error: Exception) -> str:
    """Return an error on one line, with its kind where it isn't one of ours."""
    line = " ".join(str(error).split())
    return line if isinstance(error, ConvscopeError) else f"{type(error).__name__}: {line}"
