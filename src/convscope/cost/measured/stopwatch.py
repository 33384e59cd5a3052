"""Stopping the time of every operator and module call of a real step, by the tape's addresses.

A lap is what one operator took. A module call's own time is what it took without its submodules' calls and
without the stopwatch's own work, so with the Python code around its operators. On the CPU the clock is
``time.perf_counter``; on CUDA it is the device's, by events on its stream, and operators there start in
order, so that the time between them is the device's waiting.

Limits: going from PyTorch into the dispatch mode and back (some microseconds an operator) isn't told apart
from the code around an operator; on CUDA a small operator's lap has its launch in it.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from convscope.tape import Attribution, Frame, Site, operator_name


class Clock:
    """The host's clock.

    Attributes:
        is_host: whether it runs on while Python does.
    """

    is_host = True

    def now(self) -> Any:
        """A moment; :meth:`between` tells how far two are apart."""
        return time.perf_counter()

    def between(self, begin: Any, end: Any) -> float:
        """Seconds from one moment to another; on CUDA only after :meth:`wait`."""
        return float(end - begin)

    def wait(self) -> None:
        """Wait until the device has done its work."""


class CudaClock(Clock):
    """The clock of a CUDA device: events on the current stream."""

    is_host = False

    def now(self) -> Any:
        """An event on the stream."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def between(self, begin: Any, end: Any) -> float:
        """Seconds from one event to another, which have both come."""
        return float(begin.elapsed_time(end)) / 1e3

    def wait(self) -> None:
        """Wait for the device."""
        torch.cuda.synchronize()


def clock_of(device: torch.device) -> Clock:
    """Return the clock of a device."""
    return CudaClock() if device.type == "cuda" else Clock()


@dataclass
class Laps:
    """What one watched step took, in seconds.

    Attributes:
        operators: of every operator call, with where it stands.
        modules: own time of every module call, by address and whether it was a recomputation.
        phases: of ``"zero-grad"``, ``"forward"``, ``"loss"``, ``"backward"`` and ``"optimizer"``, the
            stopwatch's own work in them included.
        bookkeeping: the stopwatch's own work, by phase.
    """

    operators: list[tuple[Site, float]] = field(default_factory=list)
    modules: dict[tuple[str, bool], float] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    bookkeeping: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def net(self, phase: str) -> float:
        """Seconds of a phase without the stopwatch's own work."""
        return self.phases[phase] - self.bookkeeping[phase]


@dataclass
class _Span:
    """A module call: its begin, and the index of the first operator lap in it."""

    frame: Frame
    begin: Any
    first: int


class Stopwatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Stops the time of one step after another; enter it around :meth:`watching`.

    Args:
        model: the network that runs.
        clock: of its device.
    """

    def __init__(self, model: nn.Module, clock: Clock) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.attribution = Attribution(model, self._enter_module, self._leave_module)
        self._clock = clock
        self._restart()

    @contextmanager
    def watching(self, phase: str, *, operators: bool = True) -> Iterator[None]:
        """Stop the time of a block, a phase of the step, and that of its operators and module calls."""
        self._clock.wait()
        first = len(self._operators)
        with ExitStack() as modes:
            if operators:
                modes.enter_context(self.attribution)
                modes.enter_context(self)
            begin = self._clock.now()
            yield
            self._phases.append((phase, begin, self._clock.now(), first))

    def laps(self) -> Laps:
        """Return what the step took, and begin a new one."""
        self._clock.wait()
        between, laps = self._clock.between, Laps()
        overhead = [
            0.0 if arrive is None else between(arrive, start) for _, arrive, start, _ in self._operators
        ]
        laps.operators = [(site, between(start, end)) for site, _, start, end in self._operators]
        ends = [first for _, _, _, first in self._phases[1:]] + [len(self._operators)]
        for (phase, begin, end, first), last in zip(self._phases, ends):
            laps.phases[phase] += between(begin, end)
            laps.bookkeeping[phase] += sum(overhead[first:last])
        whole: dict[int, float] = {}
        for span, end, last in self._calls:  # inner calls end first
            frame = span.frame
            total = between(span.begin, end) - sum(overhead[span.first : last])
            laps.modules[str(frame.address), frame.recompute] = total - whole.pop(frame.index, 0.0)
            if frame.parent is not None:
                whole[frame.parent.index] = whole.get(frame.parent.index, 0.0) + total
        self._restart()
        return laps

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = operator_name(func)
        if name is None:
            return func(*args, **(kwargs or {}))
        arrive = self._clock.now() if self._clock.is_host else None
        site = self.attribution.locate(name)
        start = self._clock.now()
        result = func(*args, **(kwargs or {}))
        self._operators.append((site, arrive, start, self._clock.now()))
        return result

    def _restart(self) -> None:
        self.attribution.restart()
        self._operators: list[tuple[Site, Any, Any, Any]] = []
        self._phases: list[tuple[str, Any, Any, int]] = []
        self._open: list[_Span] = []
        self._calls: list[tuple[_Span, Any, int]] = []

    def _enter_module(self, frame: Frame, _: Any) -> None:
        self._open.append(_Span(frame, self._clock.now(), len(self._operators)))

    def _leave_module(self, frame: Frame, _: Any) -> None:
        end = self._clock.now()
        while self._open:  # calls that checkpointing broke off end with the one around them
            span = self._open.pop()
            self._calls.append((span, end, len(self._operators)))
            if span.frame is frame:
                break
