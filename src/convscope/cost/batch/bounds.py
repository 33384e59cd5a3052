"""The largest batch under each set of assumptions, and what binds there."""

from collections import Counter
from math import gcd

from convscope.core.errors import ConvscopeError
from convscope.cost.batch.search import WINDOW, largest_below, largest_that_fits
from convscope.cost.batch.steps import BatchStep, BatchSteps
from convscope.cost.batch.values import Assumptions, BatchBound, Binding, Bound, Cap
from convscope.cost.memory.constants import GpuFigures
from convscope.cost.memory.replay import Replay, alive_at

MARGIN_SHARE = 0.02
"""Of the memory, for the safe answer: the error that forecasts of allocated memory are to stay below."""

_MULTIPLE = 8
# Operator calls that are replayed, at most, while batches are tried one by one: some seconds.
_BUDGET = 50_000
# Where sizes at two batches can't be compared tensor by tensor.
_GROWING = ("activation", "temporary", "input")


def assumptions(memory: int, figures: GpuFigures | None) -> tuple[Assumptions, Assumptions, Assumptions]:
    """Return what the optimistic, the likely and the safe answer assume, in this order.

    Args:
        memory: of the device, in bytes.
        figures: of the GPU; None for a CPU, which has neither context nor workspaces here.
    """
    low, high = figures.context_range_bytes if figures else (0, 0)
    return (
        Assumptions("none", low, 0, 0),
        Assumptions("where they fit", (low + high) // 2, 0, 0),
        Assumptions("all", high, round(MARGIN_SHARE * memory), WINDOW),
    )


class BatchBounds:
    """Searches for the largest batch, with more and more assumed to be taken; counted in the steps' stride.

    Args:
        steps: the step at any batch.
        memory: of the device, in bytes.
        max_batch: larger batches aren't tried.
    """

    def __init__(self, steps: BatchSteps, memory: int, max_batch: int) -> None:
        self._steps, self._memory, self._max = steps, memory, max_batch
        self._runs: dict[tuple[int, Assumptions], Replay] = {}

    def find(self, assumed: tuple[Assumptions, ...]) -> list[BatchBound]:
        """Return the largest batch for each; none is larger than the one before."""
        found: list[BatchBound] = []
        most = self._max
        for each in assumed:
            found.append(self._largest(each, most))
            most = found[-1].batch
        return found

    def _largest(self, assumed: Assumptions, most: int) -> BatchBound:
        capacity = self._memory - assumed.context_bytes - assumed.margin_bytes
        if capacity <= 0:
            return BatchBound(0, 1, 0, (), 0, True, assumed, 0, None, None, None)
        bound = largest_below(lambda batch: self._plain(batch) <= capacity, most)
        budget = max(1, _BUDGET // max(1, len(self._steps.smallest_step().tape.calls)))
        found = largest_that_fits(lambda batch: self._is_answer(batch, assumed), bound, budget)
        batch, exact = found.batch, found.exact
        if batch == 0:
            cap = self._cap(bound, most, capacity)
            return BatchBound(0, 1, 0, (), bound, exact, assumed, capacity, None, None, None, cap)
        run = self._run(batch, assumed)
        multiple = _MULTIPLE // gcd(_MULTIPLE, self._steps.stride)
        multiples = range(batch - batch % multiple, 0, -multiple)
        return BatchBound(
            batch=batch,
            stops_at=self._stops_at(batch, assumed),
            multiple_of_8=next((other for other in multiples if self._fits(other, assumed)), 0),
            holes=tuple(other for other in self._below(batch, WINDOW) if not self._fits(other, assumed)),
            bound=bound,
            exact=exact,
            assumptions=assumed,
            capacity_bytes=capacity,
            allocated_peak_bytes=run.allocated_peak_bytes,
            reserved_peak_bytes=run.reserved_peak_bytes if self._steps.on_cuda else None,
            bytes_per_item=self._plain(batch + 1) - self._plain(batch),
            bound_by=self._cap(bound, most, capacity),
        )

    def _cap(self, bound: int, most: int, capacity: int) -> Cap:
        """Why no batch above the bound was tried, where none above ``most`` was to be."""
        if bound < most or self._plain(most + 1) > capacity:
            return "tensors"
        return "max_batch" if most == self._max else "more hopeful answer"

    def _is_answer(self, batch: int, assumed: Assumptions) -> bool:
        """Whether a batch fits, and so many smaller ones as are assumed to."""
        return all(self._fits(each, assumed) for each in (batch, *self._below(batch, assumed.neighbours)))

    def _below(self, batch: int, window: int) -> range:
        if batch <= window + 1:
            self._steps.smallest_step()
        return range(max(self._steps.smallest, batch - window), batch)

    def _stops_at(self, batch: int, assumed: Assumptions) -> int | None:
        return next(
            (other for other in range(batch + 1, self._max + 1) if not self._fits(other, assumed)), None
        )

    def _plain(self, batch: int) -> int:
        if batch < 2:
            self._steps.smallest_step()
        return self._steps.at(max(batch, self._steps.smallest)).plain_peak_bytes()

    def _fits(self, batch: int, assumed: Assumptions) -> bool:
        if batch < 2:
            self._steps.smallest_step()
        return batch >= self._steps.smallest and self._run(batch, assumed).full is None

    def _run(self, batch: int, assumed: Assumptions) -> Replay:
        key = batch, assumed
        if key not in self._runs:
            capacity = self._memory - assumed.context_bytes - assumed.margin_bytes
            self._runs[key] = self._steps.at(batch).run(assumed.workspaces, capacity)
        return self._runs[key]


def binding(steps: BatchSteps, batch: int, bound: BatchBound) -> Binding:
    """Return what takes the memory at the peak of a batch, apart by whether it grows with the batch.

    It is looked at in the room that the bound leaves, as far as the batch fits there at all.
    """
    step, larger = steps.at(batch), steps.at(batch + 1)
    run = step.run(bound.assumptions.workspaces, bound.capacity_bytes if bound.batch else None)
    call = run.peak_call
    if call is None:
        raise ConvscopeError("a network that runs no operator", "one that does", "check its forward()")
    sizes = step.sizes()
    by_role: Counter[str] = Counter()
    growing = fixed = 0
    grows = _growing(step, larger)
    schedule = step.schedule
    for block in alive_at(schedule, call, sizes).tensors:
        own = block < schedule.num_storages
        storage = block if own else schedule.added[block - schedule.num_storages]
        by_role[step.tape.storages[storage].role] += sizes[block]
        growing += sizes[block] if storage in grows else 0
        fixed += 0 if storage in grows else sizes[block]
    phase = step.tape.calls[call].phase
    kind: Bound = "optimizer" if phase == "optimizer" else "parameters"
    return Binding(
        batch=batch,
        kind="activations" if growing >= fixed else kind,
        phase=phase,
        op=str(step.tape.calls[call].address),
        growing_bytes=growing,
        fixed_bytes=fixed,
        live_by_role=dict(by_role.most_common()),
        workspace_bytes=run.allocated_peak_bytes - growing - fixed,
    )


def _growing(step: BatchStep, larger: BatchStep) -> set[int]:
    """The storages that are larger in the next larger batch."""
    pairs = step.tape.storages, larger.tape.storages
    if len(pairs[0]) == len(pairs[1]):
        return {one.index for one, other in zip(*pairs, strict=True) if other.nbytes > one.nbytes}
    return {storage.index for storage in pairs[0] if storage.role in _GROWING}
