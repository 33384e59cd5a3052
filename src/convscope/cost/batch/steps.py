"""The same step at any batch, ready for a replay: derived from two recordings, or recorded each time.

Deriving takes milliseconds, recording a second. What was derived is checked against recordings at the
batches that an answer rests on; where it differs, every batch is recorded from then on, with the reason.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from convscope.core.errors import ConvscopeError
from convscope.cost.allocator.caching import DeviceFull
from convscope.cost.batch.scaling import Family, NotAffineError, difference, family
from convscope.cost.batch.values import Workspaces
from convscope.cost.memory.constants import GpuFigures
from convscope.cost.memory.replay import (
    Replay,
    block_sizes,
    plain_bytes,
    replay,
    rounded,
    standing_in_steady_steps,
)
from convscope.cost.memory.schedule import Schedule, schedule_of, sizes_of
from convscope.cost.memory.workspace import Workspace, workspaces
from convscope.tape import Tape

# Batches that are recorded. Small primes, so that hardly any channel, head or class count equals them; a
# batch of 1 is special to strides and to batch norm.
_PAIRS = ((5, 7), (11, 13))
_NETWORK = ("parameter", "buffer", "optimizer-state")


@dataclass(frozen=True)
class BatchStep:
    """A step at one batch.

    Attributes:
        tape: recorded or derived.
        schedule: when each of its blocks is taken and given back.
        low, high: the least and the most that the libraries take.
    """

    tape: Tape
    schedule: Schedule
    low: Workspace
    high: Workspace

    def run(self, workspace: Workspaces, capacity: int | None) -> Replay:
        """Run the step under a capacity; ``full`` is None if it fits. On CPU, sizes are added up."""
        if self.tape.device != "cuda":
            return self._added_up(capacity)
        if workspace == "all" and self.high.convolution_bytes:
            sizes = (*self.schedule.sizes, *self.high.convolution_bytes)
            required = replace(self.schedule, sizes=sizes, kernels=0)
            return replay(required, capacity=capacity, workspace=self.low)
        taken = self.low if workspace == "none" else self.high
        return replay(self.schedule, capacity=capacity, workspace=taken)

    def sizes(self) -> list[int]:
        """Bytes of all blocks, those of cuDNN's workspaces 0, as the device counts them."""
        sizes = block_sizes(self.schedule, self.low)
        return [rounded(size) for size in sizes] if self.tape.device == "cuda" else sizes

    def plain_peak_bytes(self) -> int:
        """Most bytes in use, summed without an allocator: the step needs at least as much."""
        sizes = self.sizes()
        standing = sum(sizes[block] for block in standing_in_steady_steps(self.schedule))
        return max(plain_bytes(self.schedule, sizes), default=standing)

    def standing_bytes(self) -> int:
        """Bytes of the network itself and the optimizer's states."""
        sizes = self.sizes()
        kept = (s.index for s in self.tape.storages if s.birth < 0 and s.role in _NETWORK)
        return sum(sizes[index] for index in kept)

    def _added_up(self, capacity: int | None) -> Replay:
        highs = tuple(plain_bytes(self.schedule, self.sizes()))
        peak = self.plain_peak_bytes()
        call = highs.index(max(highs)) if highs else None
        full = DeviceFull(peak, peak, peak) if capacity is not None and peak > capacity else None
        return Replay(peak, peak, call, highs, peak, peak, full)


class BatchSteps:
    """One network's step at any batch.

    Attributes:
        recorded_because: why every batch is recorded; empty while batches are derived.
        checked: batches at which a real recording equals what was derived.
        smallest: the smallest batch that runs: 1, or 2 where a batch norm refuses 1.
    """

    def __init__(self, record: Callable[[int], Tape], figures: GpuFigures | None) -> None:
        self._record, self._figures = record, figures
        self._tapes: dict[int, Tape] = {}
        self._steps: dict[int, BatchStep] = {}
        self._schedule: Schedule | None = None
        self.recorded_because = ""
        self.checked: tuple[int, ...] = ()
        self.smallest = 1
        self._family = self._derive()

    @property
    def on_cuda(self) -> bool:
        """Whether a CUDA device's memory is meant."""
        return self._figures is not None

    def at(self, batch: int) -> BatchStep:
        """Return the step at a batch; a batch of 1 is always recorded.

        Raises:
            ConvscopeError: it has to be recorded and doesn't run.
        """
        if batch not in self._steps:
            derived = self._family.at(batch) if self._family is not None and batch > 1 else None
            tape = derived or self._recording(batch)
            self._steps[batch] = self._prepared(tape, derived is not None)
        return self._steps[batch]

    def smallest_step(self) -> BatchStep:
        """Return the step at the smallest batch that runs, and note which that is."""
        try:
            return self.at(self.smallest)
        except ConvscopeError:
            if self.smallest > 1:
                raise
            self.smallest = 2
            return self.at(self.smallest)

    def check(self, batches: Iterable[int]) -> bool:
        """Compare what was derived with recordings; at a difference, record every batch from then on."""
        for batch in sorted({batch for batch in batches if batch > 1}):
            if self._family is None:
                return True
            where = difference(self._family.at(batch), self._recording(batch))
            if where:
                self._family, self.recorded_because = None, f"at a batch of {batch}, {where}"
                self._steps, self.checked = {}, ()
                return False
            self.checked = (*self.checked, batch)
        return True

    def _derive(self) -> Family | None:
        reason = ""
        for pair in _PAIRS:
            try:
                return family(self._recording(pair[0]), self._recording(pair[1]), pair)
            except NotAffineError as difference_found:
                reason = reason or f"batches of {pair[0]} and {pair[1]}: {difference_found}"
        self.recorded_because = reason
        return None

    def _recording(self, batch: int) -> Tape:
        if batch not in self._tapes:
            self._tapes[batch] = self._record(batch)
        return self._tapes[batch]

    def _prepared(self, tape: Tape, derived: bool) -> BatchStep:
        low, high = (Workspace(), Workspace()) if self._figures is None else workspaces(tape, self._figures)
        if not derived:
            return BatchStep(tape, schedule_of(tape), low, high)
        sizes = sizes_of(tape)
        if self._schedule is None or len(self._schedule.sizes) != len(sizes):
            self._schedule = schedule_of(tape)
        return BatchStep(tape, replace(self._schedule, sizes=sizes), low, high)
