"""The memory that a real training step takes on a CUDA device: what a forecast is compared with.

``torch.cuda.max_memory_allocated`` and ``max_memory_reserved`` of a step in steady state, by one protocol:

1. The model's tensors and the input go to the device; no other process's memory counts.
2. A first step. Further ones, up to 20, as long as a loss scale that is too large makes the optimizer skip
   its step, so that its states stand.
3. ``torch.cuda.reset_peak_memory_stats()``, two steps, and both peaks are read.
4. One more step, in which the peak is reset where each phase begins and read where it ends.
5. Everything goes, and steps 1 to 3 are repeated with the history of memory being recorded, from which the
   workspace of cuDNN at the peak is told apart; see :mod:`convscope.cost.measured.history`.

The step is :class:`convscope.cost.measured.real_step.RealStep`: ``zero_grad``, forward, loss, backward,
optimizer; its locals die when it ends. Random numbers are the input. Python's cycle collector rests during
the steps.

Limits: one device and one stream; if the process already holds memory on the device, it counts too.
"""

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from convscope.core.collector import collector_at_rest
from convscope.core.errors import ConvscopeError
from convscope.core.preserved import preserved_rng
from convscope.core.result import Result
from convscope.cost.measured.cuda_device import Device, device_in_use, require_cuda
from convscope.cost.measured.history import History, UnreadableHistory, read_history
from convscope.cost.measured.real_step import RealStep, real_step
from convscope.tape import TrainingPlan
from convscope.tape.substrate import Inputs

_MAX_WARM_UP_STEPS = 20
_MEASURED_STEPS = 2
_DEFAULT_PLAN = TrainingPlan()


@dataclass(frozen=True)
class Truth(Result):
    """What a real step on a CUDA device took, in bytes.

    Attributes:
        allocated_peak_bytes: ``max_memory_allocated`` of steps in steady state.
        reserved_peak_bytes: ``max_memory_reserved`` of them.
        standing_bytes: allocated between two steps.
        first_allocated_peak_bytes: ``max_memory_allocated`` from the empty device to the first step's end.
        first_reserved_peak_bytes: likewise reserved.
        phase_peaks: the most allocated in each phase of a step.
        num_warm_up_steps: steps before the measured ones.
        workspace_bytes: of cuDNN's convolutions at the peak; None if it couldn't be told.
        without_workspace_peak_bytes: the highest sum of all other blocks; None likewise.
        cublas_workspace_bytes: of cuBLAS at the peak; None likewise.
        other_scratch_bytes: other scratch memory at the peak; None likewise.
        largest_workspace_bytes: the largest of cuDNN at any time; None likewise.
        repeated_peak_bytes: ``allocated_peak_bytes`` as the history has it; None likewise.
        history_problem: why it couldn't be told; empty if it could.
        device: where it was measured.
    """

    allocated_peak_bytes: int
    reserved_peak_bytes: int
    standing_bytes: int
    first_allocated_peak_bytes: int
    first_reserved_peak_bytes: int
    phase_peaks: Mapping[str, int]
    num_warm_up_steps: int
    workspace_bytes: int | None
    without_workspace_peak_bytes: int | None
    cublas_workspace_bytes: int | None
    other_scratch_bytes: int | None
    largest_workspace_bytes: int | None
    repeated_peak_bytes: int | None
    history_problem: str
    device: Device


def measure(model: nn.Module, inputs: Inputs, plan: TrainingPlan | None = _DEFAULT_PLAN) -> Truth:
    """Return the memory of a real step on the current CUDA device; the model comes back as it was.

    Args:
        model: any eager module; the steps run on copies of its tensors, so it should lie on the CPU.
        inputs: a tensor, a tuple or dict of tensors, or a shape, filled with random numbers.
        plan: the training step; None for inference.

    Raises:
        ConvscopeError: there is no CUDA device, or the step fails: its cause is ``torch.OutOfMemoryError``
            if it doesn't fit.
    """
    require_cuda()
    with preserved_rng(), collector_at_rest(collect_first=False):
        _empty_device()
        peaks = _peaks(model, inputs, plan)
        _empty_device()
        history, problem = _history(model, inputs, plan)
    return Truth(
        **peaks,
        workspace_bytes=history.workspace_bytes if history else None,
        without_workspace_peak_bytes=history.without_workspace_peak_bytes if history else None,
        cublas_workspace_bytes=history.cublas_bytes if history else None,
        other_scratch_bytes=history.other_scratch_bytes if history else None,
        largest_workspace_bytes=history.largest_workspace_bytes if history else None,
        repeated_peak_bytes=history.allocated_peak_bytes if history else None,
        history_problem=problem,
        device=device_in_use(),
    )


def _peaks(model: nn.Module, inputs: Inputs, plan: TrainingPlan | None) -> dict[str, Any]:
    """Points 1 to 4 of the protocol: those fields of :class:`Truth`."""
    torch.cuda.reset_peak_memory_stats()
    with real_step(model, inputs, plan, torch.device("cuda")) as step:
        step.run()
        first = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        num_warm_up = 1 + _run_until_states_stand(step)
        torch.cuda.reset_peak_memory_stats()
        standing = torch.cuda.memory_allocated()
        for _ in range(_MEASURED_STEPS):
            step.run()
        peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        phase_peaks: dict[str, int] = {}
        step.run(lambda name: _peak_of_phase(phase_peaks, name))
        torch.cuda.synchronize()
    return {
        "allocated_peak_bytes": peaks[0],
        "reserved_peak_bytes": peaks[1],
        "standing_bytes": standing,
        "first_allocated_peak_bytes": first[0],
        "first_reserved_peak_bytes": first[1],
        "phase_peaks": phase_peaks,
        "num_warm_up_steps": num_warm_up,
    }


def _history(model: nn.Module, inputs: Inputs, plan: TrainingPlan | None) -> tuple[History | None, str]:
    """Point 5: what the recorded history says, or why it says nothing."""
    memory, device = torch.cuda.memory, torch.cuda.current_device()
    try:
        segments = memory._snapshot()["segments"]
        with _named_stacks():
            memory._record_memory_history("all", context="alloc", stacks="all")
            with real_step(model, inputs, plan, torch.device("cuda")) as step:
                step.run()
                _run_until_states_stand(step)
                since = len(memory._snapshot()["device_traces"][device])
                for _ in range(_MEASURED_STEPS):
                    step.run()
                events = memory._snapshot()["device_traces"][device]
        return read_history(segments, events, since), ""
    except (UnreadableHistory, ConvscopeError, RuntimeError, AttributeError, TypeError, KeyError) as error:
        return None, " ".join(f"{type(error).__name__}: {error}".split())[:300]
    finally:
        memory._record_memory_history(None)


def _run_until_states_stand(step: RealStep) -> int:
    """Run steps until the optimizer has made one of its own; return how many."""
    optimizer = step.optimizer
    if optimizer is None or step.plan is None or not step.plan.state_values_per_parameter:
        return 0
    for number in range(_MAX_WARM_UP_STEPS):
        if optimizer.state:
            return number
        step.run()
    return _MAX_WARM_UP_STEPS


@contextmanager
def _peak_of_phase(peaks: dict[str, int], name: str) -> Iterator[None]:
    torch.cuda.reset_peak_memory_stats()
    yield
    peaks[name] = torch.cuda.max_memory_allocated()


def _empty_device() -> None:
    """Give back what no tensor holds, workspaces of cuBLAS included."""
    gc.collect()
    torch.cuda.synchronize()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()


@contextmanager
def _named_stacks() -> Iterator[None]:
    """Have C++ functions named from the libraries' own tables, unless the user chose another way."""
    given = os.environ.get("TORCH_SYMBOLIZE_MODE")
    os.environ["TORCH_SYMBOLIZE_MODE"] = given or "fast"
    try:
        yield
    finally:
        if given is None:
            del os.environ["TORCH_SYMBOLIZE_MODE"]
