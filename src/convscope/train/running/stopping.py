"""Ctrl-C and SIGTERM: a run stops after the step that it is at, with a checkpoint.

Clusters send SIGTERM half a minute before they kill. So the first signal lets the running step end, a
checkpoint is written, one line says how to go on, and the process ends as the signal asks for. A second
Ctrl-C ends it at once; the last checkpoint then stands.

Several processes agree where they stop, at the next look at the losses (every ``log_every`` steps). An
epoch whose last step is done is finished first: its measurement isn't interrupted. A measurement that is due
inside an epoch at that very step is left to the resumption.

Limits: signals are listened to in Python's main thread only; elsewhere they do what they did before.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from convscope.train.feeding.batches import LoadersGoneError
from convscope.train.running.engine import summed

if TYPE_CHECKING:
    from accelerate import Accelerator

    from convscope.train.running.loop import Training

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LEFT_ALONE = (None, signal.SIG_IGN)


class Stopping:
    """Whether somebody asked this process to stop.

    Attributes:
        received: the signal, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def agreed(self, accelerator: "Accelerator", *, looking: bool) -> bool:
        """Return whether the run stops here.

        Args:
            accelerator: its processes stop together.
            looking: whether all processes are at a look at the losses; several ask each other only then.
        """
        if accelerator.num_processes == 1:
            return self.received is not None
        if not looking:
            return False
        own = torch.tensor(float(self.received or 0))
        total = float(summed(own, accelerator))
        if total and self.received is None:
            self.received = signal.SIGTERM
        return total > 0

    @contextmanager
    def listening(self, training: "Training") -> Iterator[None]:
        """Run a block in which signals are noted; their handlers are as before afterwards.

        It begins before the run's first file is written: an exception raised where Python ignores it, as
        in a finalizer, would be lost.
        """
        can_listen = threading.current_thread() is threading.main_thread()
        # A handler that wasn't installed from Python can't be put back, and one that ignores is meant.
        ours = [each for each in _SIGNALS if can_listen and signal.getsignal(each) not in _LEFT_ALONE]
        self._before = {number: signal.signal(number, self._receive) for number in ours}
        try:
            yield
        except (RuntimeError, LoadersGoneError) as error:  # stopped, too, while the run couldn't stop
            if self.received is None:
                raise
            self._leave(training, f"stopped; go on from the last checkpoint in {training.folder.path}", error)
        finally:
            for number, handler in self._before.items():
                if handler is not None:
                    signal.signal(number, handler)
            self._before = {}

    def end(self, training: "Training") -> NoReturn:
        """Say on the main process how to go on, and end every process as the signal asks for.

        Args:
            training: the run; its present position has been saved.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
            SystemExit: after SIGTERM, with its code 143.
        """
        done = f"stopped after step {training.position.step:,} of {training.total_steps:,}"
        self._leave(training, f"{done}; go on from its checkpoint in {training.folder.path}")

    def _leave(self, training: "Training", words: str, cause: Exception | None = None) -> NoReturn:
        line = f"convscope: {words} with resume=True, or --resume"
        if training.accelerator.is_main_process:
            print(line, file=sys.stderr, flush=True)
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt(line) from cause
        raise SystemExit(128 + signal.SIGTERM) from cause

    def _receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if number == signal.SIGINT and self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        if hasattr(signal, "SIGCHLD") and signal.SIGCHLD not in self._before:
            # Whoever stops a group of processes stops those that load images, too. PyTorch would raise an
            # error for that at any moment, in the middle of a step.
            self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
