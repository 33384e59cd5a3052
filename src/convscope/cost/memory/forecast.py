"""Memory over a step, from when every tensor is born and freed.

A storage is alive from the operator call that makes it to the last one before it is freed, and takes its
size rounded up to 512 B, as CUDA's caching allocator hands out. Parameters, buffers, inputs and optimizer
states are there all the time. The peak is the highest sum.

Limits: memory that operators take and give back inside themselves, blocks that the allocator doesn't
split, the libraries' workspaces, what the allocator reserves, and the CUDA context aren't forecast:
``not_forecast`` says so. ``allocated_peak_bytes`` is what the tensors need, so a lower bound.
"""

from collections import Counter
from itertools import accumulate

from convscope.cost.memory.values import Forecast, LiveTensor, TimelinePoint
from convscope.tape import Storage, Tape

BLOCK_BYTES = 512
_NUM_POINTS = 240
_NUM_LARGEST = 12
_NOT_FORECAST = (
    "reserved_peak_bytes: what the caching allocator takes from the device isn't forecast yet",
    "workspace_bytes: scratch memory of cuDNN and cuBLAS isn't forecast yet",
    "context_bytes: memory of the CUDA context isn't forecast yet",
)


def forecast(tape: Tape, block_bytes: int = BLOCK_BYTES) -> Forecast:
    """Return the memory of a recorded step over time, and what is alive at its peak.

    Args:
        tape: the recording.
        block_bytes: what sizes are rounded up to; 1 for the bytes of the tensors themselves.
    """
    storages = [storage for storage in tape.storages if storage.nbytes and not _on_host(tape, storage)]
    live = _live_bytes(storages, len(tape.calls), block_bytes)
    if not live:
        standing = sum(_rounded(storage.nbytes, block_bytes) for storage in storages if storage.birth < 0)
        return Forecast(standing, None, None, None, "", "", {}, (), (), _NOT_FORECAST)
    peak = max(range(len(live)), key=live.__getitem__)
    at_peak = [storage for storage in storages if _is_alive(storage, peak)]
    by_role: Counter[str] = Counter()
    for storage in at_peak:
        by_role[storage.role] += _rounded(storage.nbytes, block_bytes)
    largest = sorted(at_peak, key=lambda storage: -storage.nbytes)[:_NUM_LARGEST]
    return Forecast(
        allocated_peak_bytes=live[peak],
        reserved_peak_bytes=None,
        workspace_bytes=None,
        context_bytes=None,
        peak_phase=tape.calls[peak].phase,
        peak_op=str(tape.calls[peak].address),
        live_by_role=dict(by_role.most_common()),
        live_at_peak=tuple(_live_tensor(tape, storage, block_bytes) for storage in largest),
        timeline=_timeline(tape, live, peak),
        not_forecast=_NOT_FORECAST,
    )


def _live_bytes(storages: list[Storage], num_calls: int, block_bytes: int) -> list[int]:
    """Bytes alive while each call finishes, its results and its arguments included."""
    changes = [0] * (num_calls + 1)
    for storage in storages:
        birth = max(storage.birth, 0)
        death = num_calls if storage.death is None else storage.death
        if birth < death:
            changes[birth] += _rounded(storage.nbytes, block_bytes)
            changes[death] -= _rounded(storage.nbytes, block_bytes)
    return list(accumulate(changes))[:num_calls]


def _is_alive(storage: Storage, call: int) -> bool:
    return storage.birth <= call and (storage.death is None or call < storage.death)


def _on_host(tape: Tape, storage: Storage) -> bool:
    """Adam's step counters are scalars in host memory."""
    if storage.role != "optimizer-state" or storage.nbytes > 8:
        return False
    return any(parameter.name == storage.name and parameter.numel > 1 for parameter in tape.parameters)


def _rounded(nbytes: int, block_bytes: int) -> int:
    return -(-nbytes // block_bytes) * block_bytes


def _live_tensor(tape: Tape, storage: Storage, block_bytes: int) -> LiveTensor:
    born = storage.birth if 0 <= storage.birth < len(tape.calls) else None
    address = "" if born is None else str(tape.calls[born].address)
    return LiveTensor(_rounded(storage.nbytes, block_bytes), storage.role, storage.name, address)


def _timeline(tape: Tape, live: list[int], peak: int) -> tuple[TimelinePoint, ...]:
    """Highest point of each of many short stretches, and the last call of each phase's stretch."""
    stretch = -(-len(live) // _NUM_POINTS)
    starts = range(0, len(live), stretch)
    chosen = {max(range(start, min(start + stretch, len(live))), key=live.__getitem__) for start in starts}
    phases = [call.phase for call in tape.calls]
    ends = {index for index in range(len(live) - 1) if phases[index] != phases[index + 1]}
    if len(ends) > _NUM_POINTS:  # recomputation alternates with backward
        ends = {max((i for i in ends if phases[i] == phase), default=0) for phase in set(phases)}
    points = sorted(chosen | ends | {peak, len(live) - 1})
    return tuple(TimelinePoint(i, phases[i], str(tape.calls[i].address), live[i]) for i in points)
