"""What a memory forecast consists of: peaks, what is alive then, and the timeline; only numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LiveTensor:
    """A block of memory that is alive at the peak.

    Attributes:
        nbytes: its size, rounded up to 512 B.
        role: see :data:`convscope.tape.calls.Role`.
        name: of the parameter, gradient's parameter, buffer or input; empty otherwise.
        address: the operator call that made it; empty if it was there before the step.
    """

    nbytes: int
    role: str
    name: str
    address: str


@dataclass(frozen=True)
class TimelinePoint:
    """Memory in use while one operator call finishes.

    Attributes:
        call: index of the operator call in the tape.
        phase: see :data:`convscope.tape.calls.Phase`.
        address: the operator call.
        allocated_bytes: sum of the storages alive, each rounded up to 512 B.
    """

    call: int
    phase: str
    address: str
    allocated_bytes: int


@dataclass(frozen=True)
class Forecast:
    """Memory of the step on a CUDA device, as far as tensors tell it.

    ``reserved_peak_bytes``, ``workspace_bytes`` and ``context_bytes`` are None: not forecast yet, and said
    so in ``not_forecast``.

    Attributes:
        allocated_peak_bytes: highest sum of live tensors, each rounded up to 512 B.
        reserved_peak_bytes: what the caching allocator takes from the device.
        workspace_bytes: (low, high) of the libraries' scratch memory.
        context_bytes: what the driver and the libraries take outside PyTorch.
        peak_phase: phase of the operator call at the peak.
        peak_op: its address.
        live_by_role: bytes alive at the peak by role; they add up to ``allocated_peak_bytes``.
        live_at_peak: the largest blocks alive at the peak, largest first.
        timeline: memory in use over the step, thinned; the peak and the ends of phases are in it.
        not_forecast: what isn't forecast, one sentence each.
    """

    allocated_peak_bytes: int
    reserved_peak_bytes: int | None
    workspace_bytes: tuple[int, int] | None
    context_bytes: int | None
    peak_phase: str
    peak_op: str
    live_by_role: Mapping[str, int]
    live_at_peak: tuple[LiveTensor, ...]
    timeline: tuple[TimelinePoint, ...]
    not_forecast: tuple[str, ...] = field(default=())
