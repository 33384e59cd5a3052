"""Watching a run of Lightning's ``Trainer`` by a callback."""

from contextlib import ExitStack
from typing import Any

from convscope.checkup.watching.log import TrainingLog
from convscope.checkup.watching.watch import watch
from convscope.core.lightning import callback_class


def lightning_callback(every: int = 10, writer: Any = None) -> Any:
    """Return a callback that watches ``trainer.fit``; afterwards its ``log`` has the check-up.

    ``Trainer(callbacks=[callback])``, ``trainer.fit(module)``, ``callback.log.checkup()``. It watches from
    before the sanity check of the validation until the fit ends, also by an exception; a second fit begins a
    new log.

    Args:
        every: see :func:`convscope.checkup.watching.watch`.
        writer: the same; the trainer's own loggers if it is None.

    Raises:
        ConvscopeError: Lightning isn't installed.

    Not covered: the manual-optimisation loops of modules that step an optimizer which Lightning doesn't know.
    """
    base = callback_class("cs.watch")

    class Watch(base):  # type: ignore[misc,valid-type]
        """Watches a fit; ``log`` is None before the first one."""

        def __init__(self) -> None:
            self.log: TrainingLog | None = None
            self._stack = ExitStack()

        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            """Open the watch."""
            self._stack.close()
            to = writer if writer is not None or not trainer.loggers else _loggers(trainer)
            self.log = self._stack.enter_context(watch(pl_module, list(trainer.optimizers), every, to))

        def on_fit_end(self, *_: Any) -> None:
            """Close it."""
            self._stack.close()

        def on_exception(self, *_: Any) -> None:
            """Close it, whatever has happened."""
            self._stack.close()

    return Watch()


def _loggers(trainer: Any) -> Any:
    def write(values: dict[str, float], step: int) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)

    return write
