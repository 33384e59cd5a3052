"""What a memory forecast consists of: peaks, what is alive then, and the timeline; only numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LiveTensor:
    """A block of memory that is alive at the peak.

    Attributes:
        nbytes: its size, rounded up to 512 B on a CUDA device.
        role: see :data:`convscope.tape.calls.Role`.
        name: of the parameter, gradient's parameter, buffer or input; empty otherwise.
        address: the operator call that made it; empty if it was there before the step.
        module: path of the module that it belongs to or was made in; empty for inputs and the like.
    """

    nbytes: int
    role: str
    name: str
    address: str
    module: str = ""


@dataclass(frozen=True)
class TimelinePoint:
    """Memory in use while one operator call runs.

    Attributes:
        call: index of the operator call in the tape.
        phase: see :data:`convscope.tape.calls.Phase`.
        address: the operator call.
        allocated_bytes: most bytes in use while it ran.
    """

    call: int
    phase: str
    address: str
    allocated_bytes: int


@dataclass(frozen=True)
class Forecast:
    """Memory of one step in steady state: every step from the second on.

    ``allocated_peak_bytes`` is the sum of ``live_by_role``, ``scratch_bytes``, ``cublas_workspace_bytes`` and
    ``unsplit_bytes``.

    Attributes:
        allocated_peak_bytes: most bytes in use: on CUDA what ``torch.cuda.max_memory_allocated`` says if
            cuDNN's convolutions take no workspace; on CPU the sum of the tensors.
        reserved_peak_bytes: likewise ``torch.cuda.max_memory_reserved``; None on CPU.
        workspace_bytes: (low, high) of what cuDNN's convolutions take at the peak; None on CPU.
        context_bytes: most that the CUDA context takes, outside PyTorch's statistics; None on CPU.
        peak_phase: phase of the operator call at the peak.
        peak_op: its address.
        live_by_role: bytes of the tensors alive at the peak by role.
        live_at_peak: the largest blocks alive at the peak, largest first.
        timeline: memory in use over the step, thinned; the peak and the ends of phases are in it.
        not_forecast: what isn't forecast, one sentence each.
        device: ``"cuda"`` or ``"cpu"``.
        gpu: architecture whose figures were used, such as ``"sm90"``; empty on CPU.
        tensor_peak_bytes: highest sum of live tensors, each rounded up to 512 B on CUDA: a lower bound.
        scratch_bytes: copies that the operator at the peak makes inside itself.
        cublas_workspace_bytes: what cuBLAS keeps.
        unsplit_bytes: what blocks are larger than the tensors in them, since the allocator doesn't split off
            small remainders.
        allocated_range_bytes: (low, high) of the allocated peak, cuDNN's workspaces being between nothing and
            the most that they may be.
        reserved_range_bytes: (low, high) of the reserved peak, likewise; None on CPU.
        context_range_bytes: (low, high) of the CUDA context; None on CPU.
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
    device: str = "cuda"
    gpu: str = ""
    tensor_peak_bytes: int = 0
    scratch_bytes: int = 0
    cublas_workspace_bytes: int = 0
    unsplit_bytes: int = 0
    allocated_range_bytes: tuple[int, int] = (0, 0)
    reserved_range_bytes: tuple[int, int] | None = None
    context_range_bytes: tuple[int, int] | None = None
