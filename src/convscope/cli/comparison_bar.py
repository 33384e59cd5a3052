"""The course of a comparison on standard error."""

import sys
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from convscope.cli.show import aside, note

if TYPE_CHECKING:
    from convscope.train.comparing import ComparisonForecast, Standing

_ASKS_FROM_SECONDS = 60


class ComparisonBar:
    """Shows a comparison on standard error: a bar on a terminal, else a line for each run that ends.

    Args:
        asks: whether to ask before a long comparison begins.
    """

    def __init__(self, *, asks: bool) -> None:
        self._asks = asks
        self._console = aside()
        rest = TextColumn("{task.fields[rest]}")
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), rest)
        hidden = not sys.stderr.isatty()
        self._bar = Progress(
            *columns, console=self._console, transient=True, disable=hidden or self._console.quiet
        )
        self._lines, self._done = hidden, -1
        self._task = self._bar.add_task("runs", total=None, rest="")

    def forecast(self, forecast: "ComparisonForecast") -> None:
        """Show what it will take; on a terminal, ask before a long one."""
        note(forecast)
        asks = self._asks and forecast.seconds > _ASKS_FROM_SECONDS
        if asks and input("Go on? [Y/n] ").strip().lower() not in ("", "y", "yes"):
            raise KeyboardInterrupt
        self._bar.start()

    def note(self, text: str) -> None:
        """Leave a line."""
        note(text)

    def standing(self, standing: "Standing") -> None:
        """Move the bar, or leave a line if a run has ended."""
        left = "" if standing.seconds_left is None else f", {standing.seconds_left:,.0f} s left"
        ended = f"{standing.done}/{standing.total} runs"
        bad = "".join(
            f", {number} {word}"
            for number, word in ((standing.diverged, "diverged"), (standing.failed, "failed"))
            if number
        )
        running = "; ".join(f"{name} {share:.0%}" for name, share in list(standing.running.items())[:2])
        more = f" and {len(standing.running) - 2} more" if len(standing.running) > 2 else ""
        if self._lines and standing.done != self._done:
            self._console.print(f"{ended}{bad}{left}", markup=False)
        self._done = standing.done
        done = standing.done + sum(standing.running.values())
        self._bar.update(
            self._task, description=ended, total=standing.total, completed=done,
            rest=f"{running}{more}{bad}{left}",
        )  # fmt: skip

    def stop(self) -> None:
        """Take the bar away."""
        self._bar.stop()
