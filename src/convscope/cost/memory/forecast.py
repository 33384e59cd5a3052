"""How much memory does a step need, when, and for what?

The tape says when every tensor is born and freed (``schedule``). Run through the caching allocator
(``replay``) that gives what PyTorch's statistics will say: allocated memory with the remainders that the
allocator doesn't split off, and reserved memory. cuBLAS's workspace is part of both. cuDNN's convolutions
take workspaces of which only bounds are known (``workspace``), so that ``allocated_range_bytes`` and
``reserved_range_bytes`` are ranges: over replays without workspaces, with half of the largest, and with the
largest. The CUDA context lies outside of PyTorch's statistics, and is a range too (``constants``).

Reserved memory depends on where blocks happen to come to lie: a workspace more or less moves it by several
percent in either direction.

On CPU the peak is the sum of the tensors, of which PyTorch's allocator takes the exact bytes.

Limits: one stream; no CUDA graphs, no ``torch.compile``, no ``cudnn.benchmark``. Batches that are loaded
ahead, and outputs that the training loop keeps, aren't in the recorded step. See also the modules named.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from convscope.cost.allocator.caching import AllocatorConfig
from convscope.cost.memory.constants import GpuFigures, gpu_figures
from convscope.cost.memory.recurrent import memory_of_recurrent_layers
from convscope.cost.memory.replay import (
    Alive,
    Replay,
    alive_at,
    block_sizes,
    plain_bytes,
    replay,
    rounded,
    standing_in_steady_steps,
)
from convscope.cost.memory.schedule import Schedule, schedule_of
from convscope.cost.memory.values import Forecast, LiveTensor, TimelinePoint
from convscope.cost.memory.workspace import Workspace, workspaces
from convscope.tape import Storage, Tape

_NUM_POINTS = 240
_NUM_LARGEST = 12
_WORKSPACE_UNKNOWN = (
    "allocated_peak_bytes: leaves out workspaces of cuDNN's convolutions, of which only bounds are known; "
    "they are in allocated_range_bytes and reserved_range_bytes"
)
_CONTEXT_UNKNOWN = (
    "context_bytes: nothing was published for {gpu}; context_range_bytes spans what other GPUs' contexts take"
)
_ON_CPU = (
    "reserved_peak_bytes: PyTorch's allocator for CPU tensors reserves nothing ahead",
    "workspace_bytes: scratch memory of oneDNN and of other libraries isn't forecast",
    "context_bytes: memory of the Python process and its libraries isn't forecast",
)


def forecast(
    tape: Tape,
    *,
    gpu: str = "sm90",
    allocator: AllocatorConfig | None = None,
    torch_version: str | None = None,
) -> Forecast:
    """Return the memory of a recorded step over time, and what is alive at its peak.

    Args:
        tape: the recording, of a training step or of inference.
        gpu: architecture or model of the GPU, such as ``"sm80"`` or ``"T4"``; unused for a tape of the CPU.
        allocator: settings of the caching allocator; None: PyTorch's defaults.
        torch_version: whose library workspaces to count; None: the installed one.

    Raises:
        ConvscopeError: the GPU isn't known.
    """
    schedule = schedule_of(tape)
    if tape.device != "cuda":
        return _on_cpu(tape, schedule)
    figures = gpu_figures(gpu, torch_version)
    low, high = workspaces(tape, figures)
    half = replace(high, convolution_bytes=tuple(size // 2 for size in high.convolution_bytes))
    replays = [replay(schedule, config=allocator, workspace=taken) for taken in (low, half, high)]
    return _on_cuda(tape, schedule, figures, (low, high), replays)


def _on_cuda(
    tape: Tape,
    schedule: Schedule,
    figures: GpuFigures,
    ends: tuple[Workspace, Workspace],
    replays: list[Replay],
) -> Forecast:
    low, high = ends
    without, most = replays[0], replays[-1]
    sizes = [rounded(size) for size in block_sizes(schedule, low)]
    peak = without.peak_call
    alive = _alive(schedule, peak, sizes)
    live = _live_tensors(tape, schedule, alive, sizes)
    by_role = _by_role(live)
    inside = sum(sizes[block] for block in alive.inside)
    cublas = sum(sizes[block] for block in alive.products)
    num_tensors = schedule.num_storages + len(schedule.added)
    tensors = [size if block < num_tensors else 0 for block, size in enumerate(sizes)]
    allocated = without.allocated_peak_bytes
    context = figures.context_range_bytes
    unknown: tuple[str, ...] = () if figures.context_measured else (_CONTEXT_UNKNOWN.format(gpu=figures.gpu),)
    unknown += memory_of_recurrent_layers(tape)
    return Forecast(
        allocated_peak_bytes=allocated,
        reserved_peak_bytes=without.reserved_peak_bytes,
        workspace_bytes=(0, _workspace_at_peak(schedule, most, high)),
        context_bytes=context[1],
        peak_phase="" if peak is None else tape.calls[peak].phase,
        peak_op="" if peak is None else str(tape.calls[peak].address),
        live_by_role=by_role,
        live_at_peak=live[:_NUM_LARGEST],
        timeline=_timeline(tape, without.allocated_by_call, peak),
        not_forecast=(_WORKSPACE_UNKNOWN, *unknown) if schedule.kernels else unknown,
        device="cuda",
        gpu=figures.gpu,
        tensor_peak_bytes=max(plain_bytes(schedule, tensors), default=sum(by_role.values())),
        scratch_bytes=inside,
        cublas_workspace_bytes=cublas,
        unsplit_bytes=allocated - sum(by_role.values()) - inside - cublas,
        allocated_range_bytes=_range(found.allocated_peak_bytes for found in replays),
        reserved_range_bytes=_range(found.reserved_peak_bytes for found in replays),
        context_range_bytes=context,
    )


def _on_cpu(tape: Tape, schedule: Schedule) -> Forecast:
    sizes = block_sizes(schedule, Workspace())
    highs = plain_bytes(schedule, sizes)
    peak = max(range(len(highs)), key=highs.__getitem__, default=None)
    alive = _alive(schedule, peak, sizes)
    live = _live_tensors(tape, schedule, alive, sizes)
    by_role = _by_role(live)
    total = sum(by_role.values())
    return Forecast(
        allocated_peak_bytes=total,
        reserved_peak_bytes=None,
        workspace_bytes=None,
        context_bytes=None,
        peak_phase="" if peak is None else tape.calls[peak].phase,
        peak_op="" if peak is None else str(tape.calls[peak].address),
        live_by_role=by_role,
        live_at_peak=live[:_NUM_LARGEST],
        timeline=_timeline(tape, tuple(highs), peak),
        not_forecast=(*_ON_CPU, *memory_of_recurrent_layers(tape)),
        device="cpu",
        tensor_peak_bytes=total,
        allocated_range_bytes=(total, total),
    )


def _alive(schedule: Schedule, peak: int | None, sizes: list[int]) -> Alive:
    if peak is not None:
        return alive_at(schedule, peak, sizes)
    return Alive(tuple(b for b in standing_in_steady_steps(schedule) if sizes[b]), (), (), ())


def _workspace_at_peak(schedule: Schedule, most: Replay, high: Workspace) -> int:
    if most.peak_call is None:
        return 0
    sizes = block_sizes(schedule, high)
    return sum(rounded(sizes[block]) for block in alive_at(schedule, most.peak_call, sizes).kernels)


def _range(found: Iterable[int]) -> tuple[int, int]:
    numbers = list(found)
    return min(numbers), max(numbers)


def _by_role(live: tuple[LiveTensor, ...]) -> dict[str, int]:
    by_role: Counter[str] = Counter()
    for tensor in live:
        by_role[tensor.role] += tensor.nbytes
    return dict(by_role.most_common())


def _live_tensors(tape: Tape, schedule: Schedule, alive: Alive, sizes: list[int]) -> tuple[LiveTensor, ...]:
    """The tensors alive at the peak, largest first."""
    blocks = sorted(alive.tensors, key=lambda block: (-sizes[block], block))
    live = []
    for block in blocks:
        is_added = block >= schedule.num_storages
        storage = tape.storages[schedule.added[block - schedule.num_storages] if is_added else block]
        live.append(_live_tensor(tape, storage, sizes[block], "temporary" if is_added else storage.role))
    return tuple(live)


def _live_tensor(tape: Tape, storage: Storage, nbytes: int, role: str) -> LiveTensor:
    made = 0 <= storage.birth < len(tape.calls)
    call = tape.calls[storage.birth] if made else None
    if storage.name and storage.role != "input":
        module = storage.name.rpartition(".")[0]
    else:
        module = "" if call is None or call.module is None else tape.modules[call.module].address.path
    return LiveTensor(nbytes, role, storage.name, "" if call is None else str(call.address), module)


def _timeline(tape: Tape, highs: tuple[int, ...], peak: int | None) -> tuple[TimelinePoint, ...]:
    """Highest point of each phase and of each of many short stretches, and the last call of each phase."""
    if peak is None:
        return ()
    stretch = -(-len(highs) // _NUM_POINTS)
    starts = range(0, len(highs), stretch)
    chosen = {max(range(start, min(start + stretch, len(highs))), key=highs.__getitem__) for start in starts}
    phases = [call.phase for call in tape.calls]
    ends = {index for index in range(len(highs) - 1) if phases[index] != phases[index + 1]}
    if len(ends) > _NUM_POINTS:  # recomputation alternates with backward
        ends = {max(i for i in ends if phases[i] == phase) for phase in {phases[i] for i in ends}}
    tops = {max((i for i in range(len(highs)) if phases[i] == phase), key=highs.__getitem__)
            for phase in set(phases[: len(highs)])}  # fmt: skip
    points = sorted(chosen | ends | tops | {peak, len(highs) - 1})
    return tuple(TimelinePoint(i, phases[i], str(tape.calls[i].address), highs[i]) for i in points)
