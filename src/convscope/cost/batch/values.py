"""What an answer to "which batch fits?" consists of; only numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from convscope.core.result import Result

Workspaces = Literal["none", "where they fit", "all"]
"""Which workspaces of cuDNN's convolutions are taken: none; the largest that PyTorch could ask for, going
without where one doesn't fit, as PyTorch does; the largest, and a step without room for one doesn't fit."""

Bound = Literal["activations", "parameters", "optimizer"]
"""What most of the memory at the peak is for: ``activations`` grow with the batch; ``parameters`` (with
gradients and states) don't, and neither does ``optimizer``, where the peak is in its step."""

Cap = Literal["tensors", "more hopeful answer", "max_batch"]
"""Why no batch above a bound was tried: the sum of its tensors is more than there is; the answer under more
hopeful assumptions isn't larger; or the caller wanted none."""


@dataclass(frozen=True)
class Assumptions:
    """What isn't known without the GPU, decided one way.

    Attributes:
        workspaces: see :data:`Workspaces`.
        context_bytes: of the CUDA context.
        margin_bytes: left free.
        neighbours: so many of the next smaller batches have to fit too.
    """

    workspaces: Workspaces
    context_bytes: int
    margin_bytes: int
    neighbours: int


@dataclass(frozen=True)
class BatchBound:
    """The largest batch under one set of assumptions.

    Attributes:
        batch: it fits; 0: none does.
        stops_at: the smallest larger batch that doesn't fit; None if all up to ``max_batch`` do.
        multiple_of_8: the largest multiple of eight up to ``batch`` that fits; 0 if there is none.
        holes: smaller batches, of the eight below, that don't fit.
        bound: no larger batch was tried.
        exact: all batches from ``batch`` to ``bound`` were tried; otherwise the next eight were.
        assumptions: under which the batch was looked for.
        capacity_bytes: what PyTorch may take: the memory without context and margin.
        allocated_peak_bytes: at ``batch``; None if that is 0.
        reserved_peak_bytes: the same; None on CPU.
        bytes_per_item: what one more item of the batch adds to the tensors at the peak; None without a batch.
        bound_by: why no batch above ``bound`` was; see :data:`Cap`.
    """

    batch: int
    stops_at: int | None
    multiple_of_8: int
    holes: tuple[int, ...]
    bound: int
    exact: bool
    assumptions: Assumptions
    capacity_bytes: int
    allocated_peak_bytes: int | None
    reserved_peak_bytes: int | None
    bytes_per_item: int | None
    bound_by: Cap = "tensors"


@dataclass(frozen=True)
class Binding:
    """What takes the memory at the likely answer, or at the smallest batch if none fits.

    Attributes:
        batch: at which it was looked.
        kind: see :data:`Bound`.
        phase: of the operator call at the peak.
        op: its address.
        growing_bytes: of tensors alive there that are larger in larger batches.
        fixed_bytes: of tensors alive there that aren't.
        live_by_role: bytes of tensors alive there by role, largest first.
        workspace_bytes: allocated beside the tensors: workspaces of cuDNN and cuBLAS, and by how much
            PyTorch's blocks are larger than what was asked for; 0 on CPU.
    """

    batch: int
    kind: Bound
    phase: str
    op: str
    growing_bytes: int
    fixed_bytes: int
    live_by_role: Mapping[str, int]
    workspace_bytes: int = 0


@dataclass(frozen=True)
class LargestBatch(Result):
    """The largest batch that fits into some memory.

    Attributes:
        network: its name.
        plan: the training plan in words; ``"inference"`` without one.
        memory_bytes: of the device, in all.
        device: whose memory rules were followed.
        gpu: whose constants were used; None on CPU.
        safe: the largest workspaces, the largest context, a margin, and eight smaller batches fit too.
        likely: workspaces where they fit, the context halfway between its ends.
        optimistic: no workspaces, the smallest context.
        binds: what takes the memory.
        smallest_batch: the smallest that runs: 1, or 2 where a batch norm refuses 1.
        needed_bytes: the least memory in which that fits under the likely answer, which is then a batch.
        max_batch: larger ones weren't tried.
        checked: batches at which a real recording equals what was derived from two others.
        recorded_because: why every batch was recorded instead; empty if they weren't.
        stride: only its multiples were looked at, since the network doesn't run at every batch; 1 if it does.
        assumptions: what the recordings had to assume, such as the way that was taken at an ``if``.
        standing_bytes: of the network itself, with its optimizer's states.
    """

    network: str
    plan: str
    memory_bytes: int
    device: str
    gpu: str | None
    safe: BatchBound
    likely: BatchBound
    optimistic: BatchBound
    binds: Binding
    smallest_batch: int
    needed_bytes: int
    max_batch: int
    checked: tuple[int, ...]
    recorded_because: str
    stride: int = 1
    assumptions: tuple[str, ...] = ()
    standing_bytes: int = 0

    @property
    def fits(self) -> bool:
        """Whether any batch fits: the likely answer decides."""
        return self.likely.batch > 0
