"""What a run will take: memory and disk, known before its first step, and time, known after a few."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from convscope.core.result import Result

Fits = Literal["yes", "tight", "no", "unknown"]
"""``"no"``: the peak is above what is available; ``"tight"``: it may come above nine tenths of that;
``"unknown"``: one of the two isn't known."""


@dataclass(frozen=True)
class Forecast(Result):
    """What a run will take.

    Attributes:
        device: where it trains: ``"cpu"``, ``"cuda"``.
        images_per_pass: images of one forward and backward pass in one process.
        peak_bytes: most memory that one process takes on the device in a step or a checkpoint, the network's
            own included: on CPU that of the tensors, on CUDA what PyTorch reserves if convolutions take no
            workspace; None where it isn't forecast.
        available_bytes: what the process may take, the network's own memory included; None if unknown.
        fits: see :data:`Fits`; ``"yes"`` for runs so small that they weren't simulated.
        not_forecast: why ``peak_bytes`` is None; empty otherwise.
        largest_pass: an ``images_per_pass`` near the largest that fits, where the run's own doesn't; 0 if not
            even two images do; None where it fits or isn't known to.
        disk_bytes: of checkpoint and weights, a checkpoint being written beside the last one included.
        steps: optimizer steps of the whole run.
        epochs: of the whole run.
        evaluation_steps: the time of one evaluation after an epoch in optimizer steps, estimated from the
            forward pass's share in a step's floating point operations.
        seconds_per_step: median of an optimizer step, loading included; this and what follows are None until
            it was measured: see :class:`convscope.train.telling.timed.Timed`.
        seconds_per_epoch: with the evaluation, and with the measurements inside the epoch.
        seconds_left: to the end of the run, checkpoints not included.
        seconds_total: of this session: what has passed, and ``seconds_left``.
        evaluate_every: optimizer steps between two measurements inside an epoch; 0: there are none.
        measurement_steps: the time of one such measurement in optimizer steps.
        scores: which of the network's outputs is taken for the class scores and trained, in words; empty if
            it has one.
    """

    device: str
    images_per_pass: int
    peak_bytes: int | None
    available_bytes: int | None
    fits: Fits
    not_forecast: str
    largest_pass: int | None
    disk_bytes: int
    steps: int
    epochs: int
    evaluation_steps: float
    seconds_per_step: float | None = None
    seconds_per_epoch: float | None = None
    seconds_left: float | None = None
    seconds_total: float | None = None
    evaluate_every: int = 0
    measurement_steps: float = 0.0
    scores: str = ""

    def timed(self, seconds_per_step: float, step: int, finished_epochs: int, passed: float) -> "Forecast":
        """Return the forecast with its times.

        Args:
            seconds_per_step: measured.
            step: optimizer steps done.
            finished_epochs: whose evaluations are done, too.
            passed: seconds since the session's training began.
        """
        evaluation = self.evaluation_steps * seconds_per_step
        measurement = self.measurement_steps * seconds_per_step
        within, done = self._measurements_until(self.steps), self._measurements_until(step)
        left = (self.steps - step) * seconds_per_step + (within - done) * measurement
        left += (self.epochs - finished_epochs) * evaluation
        return dataclasses.replace(
            self,
            seconds_per_step=seconds_per_step,
            seconds_per_epoch=(self.steps * seconds_per_step + within * measurement) / self.epochs
            + evaluation,
            seconds_left=left,
            seconds_total=passed + left,
        )

    def _measurements_until(self, step: int) -> int:
        """How many measurements inside epochs there are up to a step; an epoch's last step has none."""
        if self.evaluate_every == 0:
            return 0
        both = math.lcm(self.evaluate_every, self.steps // self.epochs)
        return step // self.evaluate_every - step // both
