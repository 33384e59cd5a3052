"""The time of a session: speeds, and how long it may still take."""

import time

from convscope.train.config import TrainConfig
from convscope.train.keeping.checkpoint import Position
from convscope.train.telling.progress import Pulse


class Clock:
    """Times a session.

    Args:
        config: the settings.
        total_steps: of the whole run.
        first_step: steps done before this session.
    """

    def __init__(self, config: TrainConfig, total_steps: int, first_step: int) -> None:
        self.config, self.total_steps, self.first_step = config, total_steps, first_step
        self.began = self.mark = time.perf_counter()
        self.paused = self.left_out = 0.0

    def start(self) -> None:
        """Begin a lap."""
        self.mark = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the lap began, and begin another."""
        now = time.perf_counter()
        seconds, self.mark = now - self.mark, now
        return seconds

    def pause(self, seconds: float) -> None:
        """Note time that wasn't spent on training steps."""
        self.paused += seconds

    def leave_out(self) -> None:
        """Note the lap as spent on a checkpoint or a measurement inside an epoch, and begin another."""
        seconds = self.lap()
        self.left_out += seconds
        self.pause(seconds)

    def pulse(self, position: Position, loss: float | None, rate: float) -> Pulse:
        """Return where the run is, after a step."""
        steps = position.step - self.first_step
        seconds = time.perf_counter() - self.began
        return Pulse(
            step=position.step,
            total_steps=self.total_steps,
            epoch=position.epoch + 1,
            epochs=self.config.epochs,
            loss=loss,
            learning_rate=rate,
            images_per_second=steps * self.config.batch_size / max(seconds - self.paused, 1e-9),
            seconds_left=(self.total_steps - position.step) * seconds / steps,
            seconds_left_out=self.left_out,
        )
