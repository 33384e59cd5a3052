"""Progress of a reading that knows how much there is to do."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class CountBar:
    """Shows on standard error how much is done: a bar on a terminal, else nothing.

    Args:
        name: what is done.
    """

    def __init__(self, name: str) -> None:
        console = Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), MofNCompleteColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task(name, total=None)

    def __enter__(self) -> "CountBar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int | None) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=done, total=total)
