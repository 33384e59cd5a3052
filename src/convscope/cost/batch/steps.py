"""The same step at any batch, ready for a replay: derived from two recordings, or recorded each time.

Deriving takes milliseconds, recording a second. What was derived is checked against recordings at the
batches that an answer rests on; where it differs, every batch is recorded from then on, with the reason.

A network that doesn't run at every batch (``x.view(-1, frames, ...)``) is looked at in multiples of a divisor
of the batch that it was given with: the smallest at whose multiples it runs. Batches are counted in
:attr:`BatchSteps.stride` here.

Tapes are large, so only those of the last few batches are held; of the others what a replay needs is.
"""

from collections import OrderedDict
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
_NUM_TAPES = 4


@dataclass(frozen=True)
class BatchStep:
    """A step at one batch.

    Attributes:
        on_cuda: whose memory rules it follows.
        schedule: when each of its blocks is taken and given back.
        low, high: the least and the most that the libraries take.
        standing: the blocks of the network itself and of the optimizer's states.
        find_tape: returns its tape, which may have to be recorded or derived again.
    """

    on_cuda: bool
    schedule: Schedule
    low: Workspace
    high: Workspace
    standing: tuple[int, ...]
    find_tape: Callable[[], Tape]

    @property
    def tape(self) -> Tape:
        """The step's tape, recorded or derived."""
        return self.find_tape()

    def run(self, workspace: Workspaces, capacity: int | None) -> Replay:
        """Run the step under a capacity; ``full`` is None if it fits. On CPU, sizes are added up."""
        if not self.on_cuda:
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
        return [rounded(size) for size in sizes] if self.on_cuda else sizes

    def plain_peak_bytes(self) -> int:
        """Most bytes in use, summed without an allocator: the step needs at least as much."""
        sizes = self.sizes()
        standing = sum(sizes[block] for block in standing_in_steady_steps(self.schedule))
        return max(plain_bytes(self.schedule, sizes), default=standing)

    def standing_bytes(self) -> int:
        """Bytes of the network itself and the optimizer's states."""
        sizes = self.sizes()
        return sum(sizes[index] for index in self.standing)

    def _added_up(self, capacity: int | None) -> Replay:
        highs = tuple(plain_bytes(self.schedule, self.sizes()))
        peak = self.plain_peak_bytes()
        call = highs.index(max(highs)) if highs else None
        full = DeviceFull(peak, peak, peak) if capacity is not None and peak > capacity else None
        return Replay(peak, peak, call, highs, peak, peak, full)


def step_of(
    tape: Tape,
    figures: GpuFigures | None,
    schedule: Schedule | None = None,
    find_tape: Callable[[], Tape] | None = None,
) -> BatchStep:
    """Return a recorded step, ready for a replay.

    Args:
        tape: the recording.
        figures: of the GPU; None on CPU.
        schedule: of the tape, where it is known.
        find_tape: returns the tape when it is needed again, where it isn't to be held.
    """
    low, high = (Workspace(), Workspace()) if figures is None else workspaces(tape, figures)
    kept = tuple(s.index for s in tape.storages if s.birth < 0 and s.role in _NETWORK)
    held = find_tape or (lambda: tape)
    return BatchStep(figures is not None, schedule or schedule_of(tape), low, high, kept, held)


class BatchSteps:
    """One network's step at any batch.

    Args:
        record: records the step at a batch.
        figures: of the GPU; None on CPU.
        given: the batch that the user gave, at which the network should run.

    Attributes:
        stride: all batches are multiples of it, and are counted in it; 1 unless the network refuses some.
        recorded_because: why every batch is recorded; empty while batches are derived.
        checked: batches at which a real recording equals what was derived.
        smallest: the smallest batch that runs: 1, or 2 where a batch norm refuses 1.
    """

    def __init__(self, record: Callable[[int], Tape], figures: GpuFigures | None, given: int = 1) -> None:
        self._record, self._figures = record, figures
        self._tapes: OrderedDict[int, Tape] = OrderedDict()
        self._steps: dict[int, BatchStep] = {}
        self._schedules: dict[bool, Schedule] = {}
        self.stride = 1
        self.recorded_because = ""
        self.checked: tuple[int, ...] = ()
        self.smallest = 1
        self._family = self._derive_in_strides(given)

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
            self._steps[batch] = self._prepared(batch)
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
                self._family, self.recorded_because = None, f"at a batch of {batch * self.stride}, {where}"
                self._steps, self._schedules, self.checked = {}, {}, ()
                self._tapes.clear()
                return False
            self.checked = (*self.checked, batch)
        return True

    def _derive_in_strides(self, given: int) -> Family | None:
        try:
            return self._derive()
        except ConvscopeError as refused:
            reason = refused
        self._record(given)
        for self.stride in (divisor for divisor in range(2, given + 1) if given % divisor == 0):
            try:
                return self._derive()
            except ConvscopeError:
                continue
        raise ConvscopeError(
            f"a network that runs at a batch of {given}, but not at others ({reason.given})",
            "one that runs at any batch, or at multiples of the given one",
            "write its forward() without a fixed batch, such as x.flatten(1) for x.view(16, -1)",
        )

    def _derive(self) -> Family | None:
        reason = ""
        self._tapes.clear()
        for pair in _PAIRS:
            try:
                return family(self._recording(pair[0]), self._recording(pair[1]), pair)
            except NotAffineError as differ:
                first, second = (batch * self.stride for batch in pair)
                reason = reason or f"batches of {first} and {second}: {differ}"
        self.recorded_because = reason
        return None

    def _recording(self, batch: int) -> Tape:
        return self._held(batch, lambda: self._record(batch * self.stride))

    def _tape(self, batch: int) -> Tape:
        if self._family is None or batch <= 1:
            return self._recording(batch)
        return self._family.at(batch)

    def _held(self, batch: int, make: Callable[[], Tape]) -> Tape:
        if batch not in self._tapes:
            self._tapes[batch] = make()
            while len(self._tapes) > _NUM_TAPES:
                self._tapes.popitem(last=False)
        self._tapes.move_to_end(batch)
        return self._tapes[batch]

    def _prepared(self, batch: int) -> BatchStep:
        tape = self._tape(batch)
        return step_of(tape, self._figures, self._scheduled(tape, batch), lambda: self._tape(batch))

    def _scheduled(self, tape: Tape, batch: int) -> Schedule:
        """The schedule of a tape, which shares all but its sizes with that of other batches where it can."""
        sizes, derived = sizes_of(tape), self._family is not None and batch > 1
        known = self._schedules.get(derived)
        if known is None or not derived or len(known.sizes) != len(sizes):
            found = schedule_of(tape)
            if known is None or replace(found, sizes=known.sizes) != known:
                known = self._schedules[derived] = found
        return replace(known, sizes=sizes)
