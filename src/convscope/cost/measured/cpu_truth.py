"""The memory that a real step takes on the CPU, to the byte: what a forecast is compared with.

PyTorch's CPU allocator reports every block that it hands out or takes back to the profiler, with its size
as it was asked for. The model's tensors are copied while the profiler runs, so that parameters, buffers and
inputs are among the blocks, and the third of three steps is read: optimizer states stand, gradients of the
step before are freed first.

An operator may take blocks and give them back before it ends: layouts that oneDNN reorders into, sums that
are built up. No recording of tensors sees them, so they are told apart, by operator.

Limits: memory that doesn't come from PyTorch's allocator (Python, the libraries' code and caches, threads'
stacks) isn't in it; Python's cycle collector rests during the steps, as its moments are chance.

Source: ``ProfiledCPUMemoryReporter`` in ``c10/core/CPUAllocator.cpp``; oneDNN's tensors come from the same
allocator (``ATen/native/mkldnn/IDeepRegistration.cpp``).
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile, record_function

from convscope.core.collector import collector_at_rest
from convscope.core.preserved import preserved_rng
from convscope.cost.measured.quiet import without_profiler_notes
from convscope.cost.measured.real_step import Phase, real_step
from convscope.tape import TrainingPlan
from convscope.tape.substrate import Inputs

_STEPS = 3
_MARK = "convscope step "
_PHASES = {"zero-grad": "optimizer"}
_DEFAULT_PLAN = TrainingPlan()


@dataclass(frozen=True)
class CpuTruth:
    """What one real step took from PyTorch's CPU allocator, in bytes.

    Attributes:
        peak_bytes: the most that was in use at one time, parameters, states and inputs included.
        tensor_peak_bytes: the same without blocks that operators take and give back inside themselves.
        standing_bytes: in use when the step begins, gradients of the step before included.
        first_peak_bytes: the peak of the first step, which makes the optimizer's states.
        peak_phase: ``"forward"``, ``"loss"``, ``"backward"`` or ``"optimizer"``.
        peak_op: the operator that ran at the peak, such as ``"convolution_backward"``.
        phase_peaks: the most in use during each phase.
        inside_operators: blocks alive at the peak that an operator gave back before it ended, by operator.
    """

    peak_bytes: int
    tensor_peak_bytes: int
    standing_bytes: int
    first_peak_bytes: int
    peak_phase: str
    peak_op: str
    phase_peaks: Mapping[str, int]
    inside_operators: Mapping[str, int]


def measure(model: nn.Module, inputs: Inputs, plan: TrainingPlan | None = _DEFAULT_PLAN) -> CpuTruth:
    """Return the memory of a real step on the CPU; the model comes back as it was.

    Args:
        model: any eager module; the steps run on copies of its tensors.
        inputs: a tensor, a tuple or dict of tensors, or a shape, filled with random numbers.
        plan: the training step; None for inference.

    Raises:
        ConvscopeError: the step fails, or there is no room for it.

    Example:
        >>> measure(nn.ReLU(), (2, 3, 4, 5), None).peak_bytes  # two tensors of 120 floats
        960
    """
    profiler: Any = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with preserved_rng(), collector_at_rest(), _running(profiler), real_step(
        model, inputs, plan, torch.device("cpu")
    ) as step:  # fmt: skip
        for number in range(_STEPS):
            step.run(_marking(number))
    tree = profiler.profiler.kineto_results.experimental_event_tree()
    return _Run(tree).truth()


@contextmanager
def _running(profiler: Any) -> Iterator[None]:
    with without_profiler_notes():
        profiler.start()
    try:
        yield
    finally:
        with without_profiler_notes():
            profiler.stop()


def _marking(number: int) -> Phase:
    return lambda name: record_function(f"{_MARK}{number} {name}")


@dataclass
class _Block:
    """A block of memory: when it was handed out and taken back, for which operator."""

    nbytes: int
    born: int
    freed: int | None
    op: str
    is_inside: bool = False


@dataclass(frozen=True)
class _Level:
    """Bytes in use after a change, in a phase."""

    time: int
    phase: str
    op: str
    total: int
    tensors: int


_Change = str | tuple[_Block, int]
"""A phase that begins (empty: one ends), or a block and by how many bytes it changes what is in use."""


class _Run:
    """The blocks of a profiled run, and when its phases began and ended, in nanoseconds."""

    def __init__(self, tree: list[Any]) -> None:
        self.blocks: list[_Block] = []
        self.phases: list[tuple[int, int, int, str]] = []
        self._held: dict[int, tuple[_Block, int]] = {}
        for event, parents in sorted(_walk(tree, ()), key=lambda found: found[0].start_time_ns):
            if event.name.startswith(_MARK):
                number, _, name = event.name.removeprefix(_MARK).partition(" ")
                phase = _PHASES.get(name, name)
                self.phases.append((event.start_time_ns, event.end_time_ns, int(number), phase))
            elif event.tag == _EventType.Allocation:
                self._note(event, parents)

    def _note(self, event: Any, parents: tuple[Any, ...]) -> None:
        change, address, time = event.extra_fields.alloc_size, event.extra_fields.ptr, event.start_time_ns
        if change > 0:
            operator = next((parent for parent in parents if _is_dispatched(parent.name)), None)
            block = _Block(change, time, None, operator.name.partition("::")[2] if operator else "")
            self.blocks.append(block)
            self._held[address] = (block, operator.end_time_ns if operator else 0)
        elif address in self._held:  # others were there before the profiler was
            block, end = self._held.pop(address)
            block.freed, block.is_inside = time, time <= end

    def truth(self) -> CpuTruth:
        """The figures of the last step."""
        first, last = self._levels(0), self._levels(_STEPS - 1)
        peak = max(last, key=lambda level: level.total)
        inside: Counter[str] = Counter()
        for block in self.blocks:
            if block.is_inside and block.born <= peak.time < (block.freed or 0):
                inside[block.op] += block.nbytes
        return CpuTruth(
            peak_bytes=peak.total,
            tensor_peak_bytes=max(level.tensors for level in last),
            standing_bytes=last[0].total,
            first_peak_bytes=max(level.total for level in first),
            peak_phase=peak.phase,
            peak_op=peak.op,
            phase_peaks={
                phase: max(level.total for level in last if level.phase == phase)
                for phase in ("forward", "loss", "backward", "optimizer")
                if any(level.phase == phase for level in last)
            },
            inside_operators=dict(inside.most_common()),
        )

    def _levels(self, step: int) -> list[_Level]:
        """Bytes in use when each phase of a step begins, and after every change during it."""
        levels: list[_Level] = []
        phase, total, tensors = "", 0, 0
        for time, change in sorted((*self._marks(step), *self._changes()), key=lambda event: event[0]):
            op = ""
            if isinstance(change, str):
                phase = change
            else:
                block, nbytes = change
                op, total = block.op, total + nbytes
                tensors += 0 if block.is_inside else nbytes
            if phase:
                levels.append(_Level(time, phase, op, total, tensors))
        return levels

    def _marks(self, step: int) -> Iterator[tuple[int, _Change]]:
        for begin, end, number, phase in self.phases:
            if number == step:
                yield from ((begin, phase), (end, ""))

    def _changes(self) -> Iterator[tuple[int, _Change]]:
        for block in self.blocks:
            yield block.born, (block, block.nbytes)
            if block.freed is not None:
                yield block.freed, (block, -block.nbytes)


def _walk(events: list[Any], parents: tuple[Any, ...]) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Every event with those that it happened in, outermost first."""
    for event in events:
        yield event, parents
        yield from _walk(event.children, (*parents, event))


@cache
def _is_dispatched(name: str) -> bool:
    """Whether an event is an operator that PyTorch dispatches as a whole; composite ones consist of such."""
    namespace, _, operator = name.partition("::")
    packet = getattr(torch.ops.aten, operator, None) if namespace == "aten" else None
    if packet is None:
        return False
    overloads = [getattr(packet, overload).name() for overload in packet.overloads()]
    return any(map(torch._C._dispatch_has_kernel, overloads)) and not any(
        torch._C._dispatch_has_kernel_for_dispatch_key(overload, "CompositeImplicitAutograd")
        for overload in overloads
        if torch._C._dispatch_has_kernel(overload)
    )
