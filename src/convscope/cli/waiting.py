"""A sign of life of commands without a bar of their own, where they take more than two seconds.

It shows on a terminal alone, on standard error, and goes before anything else is said.
"""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from convscope.cli.quiet import is_quiet

if TYPE_CHECKING:
    from rich.console import Console

COMMANDS = frozenset(
    {"cost", "fold", "gallery-compare", "invariance", "max-batch", "networks", "occlusion", "project", "stem"}
)
"""Commands that show no bar while they work."""
_SECONDS = 2.0


class Waiting:
    """Shows that work goes on, from some seconds on.

    Args:
        text: what is done.
        console: where it is shown.
        seconds: of silence first.
    """

    def __init__(self, text: str, console: "Console", seconds: float = _SECONDS) -> None:
        self._text, self._console = text, console
        self._lock = threading.Lock()
        self._shown: Any = None
        self._is_over = False
        self._timer = threading.Timer(seconds, self._show)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        """Take it away; nothing is shown any more."""
        with self._lock:
            self._is_over = True
            self._timer.cancel()
            if self._shown is not None:
                self._shown.stop()
                self._shown = None

    def _show(self) -> None:
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        with self._lock:
            if self._is_over:
                return
            columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            self._shown = Progress(
                *columns,
                console=self._console,
                transient=True,
                redirect_stdout=False,  # which would lead results to standard error
                redirect_stderr=False,
            )
            task = self._shown.add_task(self._text, total=None)
            self._shown.tasks[task].start_time = time.monotonic() - _SECONDS
            self._shown.start()


_present: ContextVar[Waiting | None] = ContextVar("waiting", default=None)


def stop_waiting() -> None:
    """Take the sign of life away, if one is shown: something is about to be said."""
    present = _present.get()
    if present is not None:
        present.stop()


@contextmanager
def waiting(words: Sequence[str]) -> Iterator[None]:
    """Show a sign of life while a command line runs, if its command has no bar and somebody watches."""
    if not words or words[0] not in COMMANDS or is_quiet() or not sys.stderr.isatty():
        yield
        return
    from convscope.cli.show import aside

    present = Waiting(f"convscope {words[0]}", aside())
    token = _present.set(present)
    try:
        yield
    finally:
        present.stop()
        _present.reset(token)
