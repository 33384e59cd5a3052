"""What recalibration returns: every layer's residual before and after, the held-out loss, and a way back."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from convscope.core.result import Result

Method = Literal["one-pass", "sequential"]
Status = Literal["recalibrated", "frozen", "untracked", "unsupported", "unreached"]


@dataclass(frozen=True)
class Residual:
    """How far a layer's running statistics are from those of its inputs in evaluation mode.

    With running mean μ_r and variance v_r, the inputs normalised by them have the mean (μ − μ_r) / √(v_r + ε)
    and the variance (σ² + ε) / (v_r + ε), which should be 0 and 1. Each number is that of the worst channel,
    which even for right statistics, held against other samples, is a few standard errors.

    Attributes:
        mean: largest |mean| of the normalised inputs, in standard deviations.
        mean_error: its standard error, that of a mean over samples; None for one sample.
        variance: largest |log variance| of the normalised inputs.
        variance_error: its standard error; None for one sample.
    """

    mean: float
    mean_error: float | None
    variance: float
    variance_error: float | None

    @property
    def size(self) -> float:
        """The larger of both residuals; infinite if either isn't a number."""
        return max(each if math.isfinite(each) else math.inf for each in (self.mean, self.variance))


@dataclass(frozen=True)
class RecalibratedLayer:
    """One layer with running statistics, and what became of it.

    Attributes:
        path: its path in the network.
        status: ``recalibrated``; ``frozen``, ``untracked`` (it has no running statistics) and
            ``unsupported`` (not a batch norm), each left as it is; ``unreached`` (the data never came by).
            What is ``recalibrated`` has its old statistics all the same if the whole wasn't applied.
        reason: why it is left, in words.
        num_calls: calls of it in one pass over the data; above the number of batches if it is reused.
        num_values: values per channel that were pooled.
        before: residual of the old statistics; None for layers that are left.
        after: residual of the new ones; None for layers that are left, and if the data couldn't be read a
            second time.
    """

    path: str
    status: Status
    reason: str = ""
    num_calls: int = 0
    num_values: int = 0
    before: Residual | None = None
    after: Residual | None = None


@dataclass(frozen=True)
class HeldOut:
    """The loss on held-out data with the old and with the new statistics, on the same batches.

    Attributes:
        before: mean loss with the old statistics.
        after: mean loss with the new ones.
        error: standard error of ``after - before``, from the paired differences of samples, or of batches
            if the loss is one number a batch; None if there is only one of these.
        num_samples: samples.
    """

    before: float
    after: float
    error: float | None
    num_samples: int

    @property
    def is_worse(self) -> bool:
        """Whether the new statistics are worse by more than two standard errors, or aren't numbers.

        Without a standard error any rise counts. A rise within two is what chance does to two equally good
        settings once in forty times.
        """
        if not math.isfinite(self.after):
            return math.isfinite(self.before)
        return self.after - self.before > 2 * (self.error or 0.0)


@dataclass(frozen=True)
class Recalibration(Result):
    """What :func:`convscope.norm.recalibrate` did.

    Attributes:
        layers: every layer with running statistics, in the order of definition.
        method: ``"one-pass"`` or ``"sequential"``.
        applied: whether the model has the new statistics now.
        reason: why it hasn't; empty if it has.
        num_samples, num_batches: of one pass over the data, all processes together.
        num_passes: passes over the data; the sequential method's end early.
        held_out: losses on held-out data, if any was given.
    """

    not_in_json: ClassVar[frozenset[str]] = frozenset({"undoing"})

    layers: tuple[RecalibratedLayer, ...]
    method: Method
    applied: bool
    reason: str
    num_samples: int
    num_batches: int
    num_passes: int
    held_out: HeldOut | None = None
    undoing: Callable[[], None] | None = field(default=None, repr=False, compare=False)

    @property
    def residual_before(self) -> float | None:
        """The largest residual of any layer's old statistics; None if nothing was measured."""
        return _largest(layer.before for layer in self.layers)

    @property
    def residual_after(self) -> float | None:
        """The largest residual of any layer's new statistics; None if nothing was measured."""
        return _largest(layer.after for layer in self.layers)

    def undo(self) -> None:
        """Give the layers their old statistics back, in place; nothing else of the model is touched.

        Does nothing if the new ones weren't applied. Statistics that training has moved since are lost.
        """
        if self.undoing is not None:
            self.undoing()


def _largest(residuals: Iterable[Residual | None]) -> float | None:
    return max((residual.size for residual in residuals if residual is not None), default=None)
