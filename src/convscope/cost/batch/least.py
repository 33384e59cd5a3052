"""The least memory into which a recorded step fits: for sure, or under given assumptions.

The step is replayed through PyTorch's caching allocator under smaller and smaller capacities. For sure means
the assumptions of the *safe* answer of :func:`convscope.cost.largest_batch`: the largest workspaces, the
upper end of the CUDA context, and a margin. It is more than the tensors need, since blocks don't pack, and
less than the forecast's ``reserved_peak_bytes`` may be, since cached memory goes back when it is short.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from convscope.cost.batch.bounds import MARGIN_SHARE
from convscope.cost.batch.search import WINDOW
from convscope.cost.batch.steps import BatchStep, step_of
from convscope.cost.batch.values import Assumptions, Workspaces
from convscope.cost.memory.constants import gpu_figures
from convscope.tape import Tape

_GRAIN = 2**21
"""What the allocator takes memory from the device in, in bytes: capacities between differ in nothing."""


@dataclass(frozen=True)
class LeastMemory:
    """What a step needs of a device.

    Attributes:
        total_bytes: the smallest device that it fits into for sure: the sum of the three others.
        capacity_bytes: what PyTorch's allocator needs of it.
        context_bytes: most that the CUDA context takes; 0 on CPU.
        margin_bytes: left free for the forecast's error; 0 on CPU, where others use the memory anyway.
    """

    total_bytes: int
    capacity_bytes: int
    context_bytes: int
    margin_bytes: int


def least_memory(tape: Tape, *, gpu: str = "sm90") -> LeastMemory:
    """Return the least memory into which a recorded step fits for sure.

    Args:
        tape: the recording; its device says whose rules hold.
        gpu: architecture or model, such as ``"sm80"`` or ``"T4"``; unused for a tape of the CPU.

    Raises:
        ConvscopeError: the GPU isn't known.
    """
    if tape.device != "cuda":
        peak = step_of(tape, None).plain_peak_bytes()
        return LeastMemory(peak, peak, 0, 0)
    figures = gpu_figures(gpu)
    capacity = _least_capacity(step_of(tape, figures))
    context = figures.context_range_bytes[1]
    total = round((capacity + context) / (1 - MARGIN_SHARE))
    return LeastMemory(total, capacity, context, total - capacity - context)


def accepted_memory(step: BatchStep, assumed: Sequence[Assumptions]) -> int:
    """Return the least memory of a device into which a step fits under each of some assumptions, in bytes.

    Args:
        step: at the batch meant.
        assumed: their margins aren't looked at; the last takes the most memory for the context.
    """
    context = assumed[-1].context_bytes
    if not step.on_cuda:
        return step.plain_peak_bytes() + context

    def fits(capacity: int) -> bool:
        total = capacity + context
        return all(step.run(each.workspaces, total - each.context_bytes).full is None for each in assumed)

    return _least_accepted(step, assumed[-1].workspaces, fits) + context


def _least_capacity(step: BatchStep) -> int:
    """The smallest capacity into which it fits with the largest workspaces."""
    return _least_accepted(step, "all", lambda capacity: step.run("all", capacity).full is None)


def _least_accepted(step: BatchStep, workspaces: Workspaces, fits: Callable[[int], bool]) -> int:
    """The smallest capacity in grains at which it fits, and at the next few larger ones as well."""
    high = -(-step.run(workspaces, None).reserved_peak_bytes // _GRAIN)
    low = min(step.plain_peak_bytes() // _GRAIN, high)  # may fit, but nothing smaller does
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle * _GRAIN) else (middle + 1, high)
    holes = [grains for grains in range(low + 1, low + WINDOW) if not fits(grains * _GRAIN)]
    return (max(holes) + 1 if holes else low) * _GRAIN
