"""What a search for remedies found; only numbers and sentences."""

from dataclasses import dataclass

from convscope.core.result import Result


@dataclass(frozen=True)
class Remedy:
    """One change of a training step, and what it does to the peak.

    Attributes:
        name: stable identifier, such as ``"inplace-relu"`` or ``"checkpoint:layer1"``.
        change: what to do, as a sentence.
        how: the line of code to write.
        keeps_result: whether the step computes the same weights, up to rounding and random numbers.
        note: what else it changes; empty if nothing.
        allocated_peak_bytes, reserved_peak_bytes: the forecast with it; None if it can't be done.
        saved_bytes: how much lower ``allocated_peak_bytes`` is; negative if it is higher.
        saved_reserved_bytes: how much lower ``reserved_peak_bytes`` is.
        saved_share: ``saved_bytes`` as a share of the peak without it.
        extra_flops_share: additional FLOPs per item of the batch, as a share of the step's; negative if
            fewer.
        impossible: why it can't be done; empty if it can.
    """

    name: str
    change: str
    how: str
    keeps_result: bool
    note: str
    allocated_peak_bytes: int | None
    reserved_peak_bytes: int | None
    saved_bytes: int | None
    saved_reserved_bytes: int | None
    saved_share: float | None
    extra_flops_share: float | None
    impossible: str = ""


@dataclass(frozen=True)
class Explanation(Result):
    """What would lower the peak of memory of a step.

    Attributes:
        network: its name.
        batch_size: of the step as it is.
        allocated_peak_bytes, reserved_peak_bytes: its forecast.
        peak_phase, peak_op: where its peak is.
        remedies: by effect, largest first; then those without any; then those that can't be done.
    """

    network: str
    batch_size: int
    allocated_peak_bytes: int
    reserved_peak_bytes: int | None
    peak_phase: str
    peak_op: str
    remedies: tuple[Remedy, ...]
