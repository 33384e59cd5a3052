"""Progress of long work on a terminal: a bar with time left, images per second and the loss."""

import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from convscope.cli.show import aside

if TYPE_CHECKING:
    from convscope.checkup import Progress as Course
    from convscope.report import Stage
    from convscope.sight.picturing.options import Course as Looking
    from convscope.train import EpochRecord, Forecast, Pulse

# A line for each epoch is enough where nobody watches.
_LINES = not sys.stderr.isatty()


class TrainingBar:
    """Shows a training run on standard error: a bar on a terminal, else one line for each epoch.

    Attributes:
        num_steps: that it was told of.
    """

    def __init__(self) -> None:
        console = aside()
        # The bar has what the figures leave of the line.
        columns = (TextColumn("{task.description}"), BarColumn(None), TextColumn("{task.fields[rest]}"))
        hidden = _LINES or console.quiet
        self._bar = Progress(*columns, console=console, transient=True, disable=hidden, expand=True)
        self._console = console
        self._epochs = 0
        self.num_steps = 0

    def start(self, total_steps: int, first_step: int, epochs: int) -> None:
        """Show an empty bar, or one filled as far as the run that is resumed."""
        self._epochs = epochs
        self._task = self._bar.add_task("training", total=total_steps, completed=first_step, rest="")
        self._bar.start()

    def forecast(self, forecast: "Forecast") -> None:
        """Leave a line with what is trained of several outputs, one with the memory, one with the time.

        The memory's unless it is small, the time's when it is known.
        """
        from convscope.report.terminal.forecast import memory_words, time_words

        if forecast.seconds_per_step is not None:
            self._console.print(time_words(forecast), markup=False)
            return
        if forecast.scores:
            self._console.print(f"trained as class scores: {forecast.scores}", markup=False)
        if forecast.peak_bytes is not None or forecast.fits == "unknown":
            self._console.print(f"memory: {memory_words(forecast)}", markup=False)

    def step(self, pulse: "Pulse") -> None:
        """Move the bar."""
        self.num_steps += 1
        loss = "" if pulse.loss is None else f"loss {pulse.loss:.3f}, "
        left = timedelta(seconds=round(pulse.seconds_left))
        speed = f"{pulse.images_per_second:,.0f} images/s"
        rest = f"{loss}rate {pulse.learning_rate:.3g}, {speed}, {left} left"
        description = f"epoch {pulse.epoch}/{pulse.epochs}"
        self._bar.update(self._task, completed=pulse.step, description=description, rest=rest)

    def epoch(self, record: "EpochRecord") -> None:
        """Leave a line with the epoch's figures."""
        self._console.print(
            f"epoch {record.epoch}/{self._epochs}: training loss {record.train_loss:.3f}, "
            f"validation accuracy {record.validation_accuracy:.1%}, {record.images_per_second:,.0f} images/s",
            markup=False,
        )

    def stop(self) -> None:
        """Take the bar away."""
        self._bar.stop()


class StageLines:
    """Shows the stages of a report on standard error: a bar on a terminal, else one line for each stage."""

    def __init__(self) -> None:
        console = aside()
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=_LINES or console.quiet)
        self._console = console
        self._stage, self._detail = 0, ""

    def __enter__(self) -> "StageLines":
        self._bar.start()
        self._task = self._bar.add_task("", total=1.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, stage: "Stage") -> None:
        """Show where the report is."""
        if stage.number != self._stage:
            self._stage = stage.number
            self._console.print(f"[{stage.number}/{stage.total}] {stage.name}", markup=False)
        if _LINES and stage.detail not in ("", self._detail):
            self._console.print(f"      {stage.detail}", markup=False)
        self._detail = stage.detail
        shown = f"{stage.name} {stage.detail}".strip()
        self._bar.update(self._task, description=shown, completed=stage.share)


class CheckupBar:
    """Shows where a check-up is on standard error: a bar on a terminal, else nothing."""

    def __init__(self) -> None:
        console = aside()
        count = TextColumn("{task.fields[count]}")
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), count)
        self._bar = Progress(*columns, console=console, transient=True, disable=_LINES or console.quiet)

    def __enter__(self) -> "CheckupBar":
        self._bar.start()
        self._task = self._bar.add_task("check-up", total=None, count="")
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, course: "Course") -> None:
        """Show what is being measured, and how much of it is done."""
        count = f"{course.done}" if course.total is None else f"{course.done} of {course.total}"
        self._bar.update(
            self._task, description=course.purpose, completed=course.done, total=course.total, count=count
        )


_LOOKS = {"scan": "looking at all images", "projections": "projecting the strongest"}


class LookBar:
    """Shows where a gallery is on standard error: a bar with images a second and the time left on a terminal.

    Elsewhere a line for each of its two looks; in either case the folder where what is done is kept.

    Args:
        shown: whether anything is shown at all.
    """

    def __init__(self, *, shown: bool) -> None:
        self._console = aside(shown=shown)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[rest]}"),
        )
        hidden = _LINES or self._console.quiet
        self._bar = Progress(*columns, console=self._console, transient=True, disable=hidden)
        self._stage = ""
        self._begun, self._before = 0.0, 0

    def __enter__(self) -> "LookBar":
        self._bar.start()
        self._task = self._bar.add_task("", total=None, rest="")
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, course: "Looking") -> None:
        """Move the bar, and say where what is done is kept when the first look begins."""
        if course.stage != self._stage:
            if not self._stage:
                self._console.print(f"unfinished work is kept in {course.working}", markup=False)
            if _LINES:
                self._console.print(_LOOKS[course.stage], markup=False)
            # Images of an interrupted run count as done, not as this run's speed.
            self._stage, self._begun, self._before = course.stage, time.monotonic(), course.done
        seconds = max(time.monotonic() - self._begun, 1e-9)
        speed = (course.done - self._before) / seconds
        left = (
            ""
            if course.total is None or not speed
            else f", {(course.total - course.done) / speed:,.0f} s left"
        )
        self._bar.update(
            self._task, description=_LOOKS[course.stage], completed=course.done, total=course.total,
            rest=f"{speed:,.1f} images/s{left}" if speed else "",
        )  # fmt: skip
