"""How long will a run take? Measured on its own first steps, not on steps that are thrown away."""

import time
from statistics import median

import torch

from convscope.train.run import EpochRecord
from convscope.train.telling.forecast import Forecast
from convscope.train.telling.progress import Progress, Pulse

_MEASURED = 5
_WARM_UP = 3  # memory is allocated, kernels are chosen
# The first ten steps are watched closely, which short steps notice.
_WATCHED, _LONG_SECONDS = 10, 0.5


class Timed:
    """Hands the course of a run on, and tells a forecast: at the start, and with times after some steps.

    Steps are long enough where half a second or more: then it is the median of the fourth to the eighth; else
    of the eleventh to the fifteenth. Runs that are shorter get no times.

    Args:
        progress: is told everything.
        forecast: of the run, without times.
        device: whose work is waited for while steps are measured.
    """

    def __init__(self, progress: Progress, forecast: Forecast, device: torch.device) -> None:
        self._progress, self._forecast, self._device = progress, forecast, device
        self._seconds: list[float] = []
        self._done = False
        self._began = self._mark = self._left_out = 0.0

    def start(self, total_steps: int, first_step: int, epochs: int) -> None:
        """Hand it on, and tell the forecast."""
        self._progress.start(total_steps, first_step, epochs)
        self._progress.forecast(self._forecast)
        self._began = self._mark = time.perf_counter()

    def forecast(self, forecast: Forecast) -> None:
        """Hand it on."""
        self._progress.forecast(forecast)

    def step(self, pulse: Pulse) -> None:
        """Time the step, and hand it on."""
        if not self._done:
            self._measure(pulse)
        self._progress.step(pulse)

    def epoch(self, record: EpochRecord) -> None:
        """Hand it on; the evaluation belongs to no step."""
        self._progress.epoch(record)
        self._mark = time.perf_counter()

    def stop(self) -> None:
        """Hand it on."""
        self._progress.stop()

    def _measure(self, pulse: Pulse) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self._seconds.append(now - self._mark - (pulse.seconds_left_out - self._left_out))
        self._left_out = pulse.seconds_left_out
        measured = self._measured()
        if measured is not None:
            self._done = True
            timed = self._forecast.timed(measured, pulse.step, pulse.epoch - 1, now - self._began)
            self._progress.forecast(timed)
        self._mark = time.perf_counter()

    def _measured(self) -> float | None:
        """The median of a step, once it is known."""
        taken = len(self._seconds)
        if taken == _WARM_UP + _MEASURED:
            typical = median(self._seconds[_WARM_UP:])
            return typical if typical >= _LONG_SECONDS else None
        return median(self._seconds[_WATCHED:]) if taken == _WATCHED + _MEASURED else None
