"""``measure``: the real time of every row of the table on this machine, beside its FLOPs.

Real steps run on the model's own device, on copies of its tensors: one unwatched, one watched, in turn. In
a watched step a dispatch mode stops every operator's time and names it as the tape does; the tape's layers
say whose row it is: a forward operator's own, for a backward operator that of the forward operator which it
differentiates. Views and allocations belong to the row that the table gives them to.

Where a row is a module's whole call, the row's forward time is the module call's own, with the Python code
around its operators. All other time in which no operator ran is in ``Timings.between``, so that rows,
``between`` and the optimizer add up to the whole.

Limits: on the CPU, other work of the machine falls on the rows it hits; medians over repeats help, and their
sum is below the median of whole steps, which some work always hits. Python's cycle collector rests. A
network that takes another way through its code for real than in the recording has operators without a row.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from convscope.core.collector import collector_at_rest
from convscope.core.errors import ConvscopeError
from convscope.core.preserved import preserved_rng
from convscope.cost.measured.machine import device_name
from convscope.cost.measured.real_step import RealStep, device_of, real_step
from convscope.cost.measured.stopwatch import Laps, Stopwatch, clock_of
from convscope.cost.measured.timed_rows import TimedRows, seconds_of
from convscope.cost.measured.values import Between, Timings
from convscope.tape import Tape, TrainingPlan, record
from convscope.tape.plan import describe
from convscope.tape.substrate import Inputs

_WATCHED = ("forward", "loss", "backward")
_NO_ROW = "no row"
_WHOLE = {"loss": "forward", "zero-grad": "optimizer"}
_Series = dict[str, list[float]]
_DEFAULT_PLAN = TrainingPlan()


def measure(
    model: nn.Module,
    inputs: Inputs,
    plan: TrainingPlan | None = _DEFAULT_PLAN,
    tape: Tape | None = None,
    *,
    repeats: int = 10,
    warmup: int = 2,
) -> Timings:
    """Return what every row of the table really takes here; the model comes back as it was.

    Args:
        model: any eager module, on the device to measure.
        inputs: a tensor, a tuple or dict of tensors, or a shape, filled with random numbers.
        plan: the training step; None for inference: forward only.
        tape: the recording of the same step for this device, if there is one already.
        repeats: steps of each kind, watched and unwatched, at least 2.
        warmup: steps before them.

    Raises:
        ConvscopeError: fewer than two repeats, ``tape`` is of another kind of step, the network can't be
            recorded, or a real step fails.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> found = measure(net, (2, 3, 16, 16), plan=None, repeats=2)
        >>> [row.address for row in found.rows]
        ['0#1', '1#1']
    """
    if repeats < 2 or warmup < 0:
        raise ConvscopeError(
            f"repeats={repeats}, warmup={warmup}", "at least 2 and at least 0", "give more, 10 for instance"
        )
    if tape is not None and tape.training != (plan is not None):
        kind = "a training step" if tape.training else "inference"
        raise ConvscopeError(
            f"a tape of {kind} for {describe(plan)}", "one of the same step", "change the plan"
        )
    device = device_of(model)
    tape = tape or record(model, inputs, plan, device="cuda" if device.type == "cuda" else "cpu")
    with preserved_rng(), collector_at_rest(), real_step(model, inputs, plan) as step:
        for _ in range(warmup):
            step.run()
        return _Measurement(model, tape, step).run(repeats)


class _Measurement:
    """Watched and unwatched steps, and the sums over them by row."""

    def __init__(self, model: nn.Module, tape: Tape, step: RealStep) -> None:
        self._model, self._tape, self._step = model, tape, step
        self._clock = clock_of(step.device)
        self._rows = TimedRows(tape)
        self._forward: _Series = defaultdict(list)
        self._backward: _Series = defaultdict(list)
        self._between: _Series = defaultdict(list)
        self._plain: _Series = defaultdict(list)
        self._optimizer: list[float] = []
        self._watched: list[float] = []

    def run(self, repeats: int) -> Timings:
        """The timings over so many steps of each kind."""
        stopwatch = Stopwatch(self._model, self._clock)
        for number in range(repeats):
            self._unwatched()
            self._clock.wait()
            begin = time.perf_counter()
            self._step.run(lambda phase: stopwatch.watching(phase, operators=phase in _WATCHED))
            self._clock.wait()
            self._watched.append(time.perf_counter() - begin)
            self._add(stopwatch.laps(), number)
        return self._timings(repeats)

    def _unwatched(self) -> None:
        taken: dict[str, float] = defaultdict(float)

        @contextmanager
        def timed(phase: str) -> Iterator[None]:
            self._clock.wait()
            begin = time.perf_counter()
            yield
            self._clock.wait()
            taken[_WHOLE.get(phase, phase)] += time.perf_counter() - begin

        begin = time.perf_counter()
        self._step.run(timed)
        taken["step"] = time.perf_counter() - begin
        for phase in ("step", "forward", "backward"):
            self._plain[phase].append(taken[phase])

    def _add(self, laps: Laps, number: int) -> None:
        """Share a watched step's laps out among rows and what lies between them."""
        forward: dict[str, float] = defaultdict(float)
        backward: dict[str, float] = defaultdict(float)
        between: dict[str, float] = defaultdict(float)
        for (address, recompute), own in laps.modules.items():
            row = self._rows.whole(address) if self._clock.is_host else None
            if row is not None:
                (backward if recompute else forward)[row] += own
            elif not recompute:
                between[address.partition("#")[0]] += own
        for site, seconds in laps.operators:
            row, is_inside = self._rows.of(site), self._clock.is_host and self._rows.is_inside(site)
            is_forward = site.phase in ("forward", "loss")
            if not is_inside:
                (forward if is_forward else backward)[_NO_ROW if row is None else row] += seconds
            if site.phase == "forward" and not is_inside:
                between[site.address.path] -= seconds
        calls = sum(own for (_, recompute), own in laps.modules.items() if not recompute)
        losses = sum(seconds for site, seconds in laps.operators if site.phase == "loss")
        between["self"] += laps.net("forward") - calls
        between["loss"] += laps.net("loss") - losses
        between["backward"] += laps.net("backward") - sum(backward.values())
        between[_NO_ROW] = forward.pop(_NO_ROW, 0.0) + backward.pop(_NO_ROW, 0.0)
        self._optimizer.append(laps.net("optimizer") + laps.net("zero-grad"))
        for kept, found in ((self._forward, forward), (self._backward, backward), (self._between, between)):
            for name, seconds in found.items():
                kept[name] += [0.0] * (number - len(kept[name])) + [max(seconds, 0.0)]

    def _timings(self, repeats: int) -> Timings:
        step, tape = self._step, self._tape
        between = [Between(path, seconds_of(times, repeats)) for path, times in self._between.items()]
        optimizer = seconds_of(self._optimizer, repeats)
        halves = [
            (seconds_of(self._forward.get(row.address, []), repeats),
             seconds_of(self._backward.get(row.address, []), repeats))
            for row in self._rows.rows
        ]  # fmt: skip
        total = sum(each.seconds.median for each in between) + optimizer.median
        total += sum(forward.median + backward.median for forward, backward in halves)
        unwatched = seconds_of(self._plain["step"], repeats)
        return Timings(
            network=type(self._model).__name__,
            input_shapes=tuple(tape.values[value].shape for value in tape.inputs),
            plan=describe(step.plan),
            device=device_name(step.device),
            num_threads=torch.get_num_threads(),
            dtype=_dtype(step),
            torch_version=torch.__version__,
            repeats=repeats,
            rows=tuple(self._rows.timings(halves, total)),
            between=tuple(
                sorted((b for b in between if b.seconds.high > 0), key=lambda b: -b.seconds.median)
            ),
            optimizer=optimizer,
            seconds=total,
            unwatched=unwatched,
            unwatched_forward=seconds_of(self._plain["forward"], repeats),
            unwatched_backward=seconds_of(self._plain["backward"], repeats),
            added_seconds=statistics.median(self._watched) - unwatched.median,
        )


def _dtype(step: RealStep) -> str:
    if step.plan is not None and step.plan.precision.startswith("amp"):
        return step.plan.precision
    floating = (tensor.dtype for tensor in step.model.parameters() if tensor.is_floating_point())
    return str(next(floating, torch.get_default_dtype())).removeprefix("torch.")
