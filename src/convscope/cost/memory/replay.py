"""A schedule run through PyTorch's caching allocator: what a training process allocates and reserves.

The model is loaded, then come a first step, in which the optimizer makes its states, and two more. Peaks are
those of the last two, as ``torch.cuda.max_memory_allocated`` and ``max_memory_reserved`` give them when
``torch.cuda.reset_peak_memory_stats`` is called after the first; segments that the first step took are still
reserved then. Two, because the second of them can still reserve more: the optimizer's states lie where the
first step had free blocks.

:func:`plain_bytes` adds the blocks up without an allocator.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from convscope.cost.allocator.caching import BLOCK_BYTES, AllocatorConfig, CachingAllocator, DeviceFull
from convscope.cost.memory.schedule import Events, Schedule
from convscope.cost.memory.workspace import Workspace


@dataclass(frozen=True)
class Replay:
    """What a replay found.

    Attributes:
        allocated_peak_bytes: highest sum of blocks in use in the steady steps.
        reserved_peak_bytes: most that was taken from the device in the steady steps.
        peak_call: index of the operator call at the allocated peak; None without calls.
        allocated_by_call: highest sum while each call of the steady step with the peak ran.
        first_step_allocated_peak_bytes: the same in the first step, loading included.
        first_step_reserved_peak_bytes: the same in the first step, loading included.
        full: the request that the device couldn't serve; the rest is what there was until then.
    """

    allocated_peak_bytes: int
    reserved_peak_bytes: int
    peak_call: int | None
    allocated_by_call: tuple[int, ...]
    first_step_allocated_peak_bytes: int
    first_step_reserved_peak_bytes: int
    full: DeviceFull | None = None


class Alive(NamedTuple):
    """The blocks in use when a call of a steady step needs most, by kind."""

    tensors: tuple[int, ...]
    inside: tuple[int, ...]
    kernels: tuple[int, ...]
    products: tuple[int, ...]


def replay(
    schedule: Schedule,
    *,
    config: AllocatorConfig | None = None,
    capacity: int | None = None,
    workspace: Workspace | None = None,
    num_steps: int = 2,
) -> Replay:
    """Run a training process through the allocator.

    Args:
        schedule: see :func:`convscope.cost.memory.schedule.schedule_of`.
        config: settings of the allocator; None: PyTorch's defaults.
        capacity: bytes that the device can give to the process; None: without end. A convolution's workspace
            that doesn't fit isn't taken.
        workspace: what the libraries take; None: nothing.
        num_steps: number of steps after the first.
    """
    allocator = CachingAllocator(config or AllocatorConfig(), capacity)
    process = _Process(allocator, schedule, workspace or Workspace())
    first = (0, 0)
    highs: list[int] = []
    full = None
    try:
        process.take(schedule.standing)
        process.step(schedule.first)
        first = allocator.peak_allocated, allocator.peak_reserved
        process.give_back(schedule.before)
        allocator.reset_peaks()
        for _ in range(num_steps):
            process.give_back(schedule.before)
            found = process.step(schedule.steady)
            highs = found if not highs or max(found, default=0) > max(highs) else highs
    except DeviceFull as reason:
        full = reason
    if full is not None and not any(first):
        first = allocator.peak_allocated, allocator.peak_reserved
    return Replay(
        allocated_peak_bytes=allocator.peak_allocated,
        reserved_peak_bytes=allocator.peak_reserved,
        peak_call=max(range(len(highs)), key=highs.__getitem__) if highs else None,
        allocated_by_call=tuple(highs),
        first_step_allocated_peak_bytes=first[0],
        first_step_reserved_peak_bytes=first[1],
        full=full,
    )


class _Process:
    """A process on the device: which blocks it holds."""

    def __init__(self, allocator: CachingAllocator, schedule: Schedule, workspace: Workspace) -> None:
        self._allocator = allocator
        self._sizes = block_sizes(schedule, workspace)
        self._optional = schedule.kernel_blocks
        self._handles = [0] * schedule.num_blocks

    def take(self, blocks: Events) -> None:
        """Take blocks."""
        for block in blocks:
            if self._sizes[block]:
                self._handles[block] = self._allocator.allocate(self._sizes[block])

    def give_back(self, blocks: Events) -> None:
        """Give back those of some blocks that are held."""
        for block in blocks:
            if self._handles[block]:
                self._allocator.free(self._handles[block])
                self._handles[block] = 0

    def step(self, calls: tuple[Events, ...]) -> list[int]:
        """Run a step; return the most bytes in use while each call ran."""
        allocator, sizes, handles, optional = self._allocator, self._sizes, self._handles, self._optional
        allocate, free = allocator.allocate, allocator.free
        highs = []
        for events in calls:
            high = 0
            for block in events:
                if block < 0:
                    if handle := handles[~block]:
                        free(handle)
                        handles[~block] = 0
                elif size := sizes[block]:
                    try:
                        handles[block] = allocate(size)
                    except DeviceFull:
                        if block not in optional:
                            raise
                    high = max(high, allocator.allocated)
            highs.append(high or allocator.allocated)
        return highs


def block_sizes(schedule: Schedule, workspace: Workspace) -> list[int]:
    """Return the bytes of all blocks, the libraries' included; 0 for those that aren't taken."""
    kernels = workspace.convolution_bytes or (0,) * schedule.kernels
    cublas = workspace.cublas_bytes
    return [*schedule.sizes, *kernels, cublas, workspace.cublaslt_bytes, cublas]


def plain_bytes(schedule: Schedule, sizes: list[int]) -> list[int]:
    """Return the most bytes in use while each call of a steady step runs, summed without an allocator.

    Args:
        schedule: the blocks' lives.
        sizes: bytes of every block; 0 to leave it out.
    """
    allocated = sum(sizes[block] for block in standing_in_steady_steps(schedule))
    highs = []
    for events in schedule.steady:
        high = 0
        for block in events:
            allocated += sizes[block] if block >= 0 else -sizes[~block]
            if block >= 0:
                high = max(high, allocated)
        highs.append(high or allocated)
    return highs


def alive_at(schedule: Schedule, call: int, sizes: list[int]) -> Alive:
    """Return the blocks in use when a call of a steady step needs most.

    Args:
        schedule: the blocks' lives.
        call: index of the call.
        sizes: bytes of every block; those of size 0 are left out.
    """
    alive = dict.fromkeys(standing_in_steady_steps(schedule))
    for events in schedule.steady[:call]:
        _apply(alive, events)
    events = schedule.steady[call]
    gains = [sizes[block] if block >= 0 else -sizes[~block] for block in events]
    taken = [position for position, block in enumerate(events, start=1) if block >= 0]
    totals = [0, *accumulate(gains)]
    _apply(alive, events[: max(taken, key=totals.__getitem__, default=len(events))])
    return _by_kind(schedule, [block for block in alive if sizes[block]])


def standing_in_steady_steps(schedule: Schedule) -> list[int]:
    """Return the blocks that a steady step finds: those of loading, and what the first step left."""
    alive = dict.fromkeys(schedule.standing)
    for events in schedule.first:
        _apply(alive, events)
    for block in schedule.before:
        alive.pop(block, None)
    return list(alive)


def rounded(nbytes: int) -> int:
    """Return the size of the smallest block that holds some bytes."""
    return -(-nbytes // BLOCK_BYTES) * BLOCK_BYTES


def _apply(alive: dict[int, None], events: Events) -> None:
    for block in events:
        if block >= 0:
            alive[block] = None
        else:
            alive.pop(~block, None)


def _by_kind(schedule: Schedule, blocks: list[int]) -> Alive:
    kernels, products = schedule.kernel_blocks, schedule.product_blocks
    inside = range(schedule.num_storages + len(schedule.added), kernels.start)
    return Alive(
        tuple(block for block in blocks if block < inside.start),
        tuple(block for block in blocks if block in inside),
        tuple(block for block in blocks if block in kernels),
        tuple(block for block in blocks if block in products),
    )
