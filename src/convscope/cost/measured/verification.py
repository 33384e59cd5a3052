"""``verify``: is the memory forecast right, for this network, here?

A real step is measured (:mod:`convscope.cost.measured.cpu_truth` on the CPU,
:mod:`convscope.cost.measured.cuda_truth` on a CUDA device) and put beside the forecast of the same step.

What operators take inside themselves (layouts that oneDNN reorders into, workspaces of cuDNN) depends on the
processor and the library's version and isn't forecast as one number. The forecast is therefore compared with
the measured peak both with and without it.

Limits: one network, one plan and one machine; on the CPU nothing is reserved ahead.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.core.result import Result
from convscope.cost.measured import cpu_truth, cuda_truth
from convscope.cost.measured.cuda_device import device_in_use, require_cuda
from convscope.cost.measured.machine import device_name
from convscope.cost.memory.forecast import forecast
from convscope.cost.memory.values import Forecast
from convscope.tape import Tape, TrainingPlan, record
from convscope.tape.plan import describe
from convscope.tape.substrate import Inputs

_DEFAULT_PLAN = TrainingPlan()
_PHASES = ("forward", "loss", "backward", "optimizer")
_TAPES_PHASES = {"recompute": "backward", "zero-grad": "optimizer"}


@dataclass(frozen=True)
class PhaseCheck:
    """The most memory in use during a phase of the step.

    Attributes:
        phase: ``"forward"``, ``"loss"``, ``"backward"`` (recomputation included) or ``"optimizer"``.
        measured_bytes: of the real step.
        forecast_bytes: highest point of the forecast's timeline in this phase.
        error: ``forecast / measured - 1``.
    """

    phase: str
    measured_bytes: int
    forecast_bytes: int
    error: float


@dataclass(frozen=True)
class Verification(Result):
    """A forecast beside the memory that a real step took; errors are ``forecast / measured - 1``.

    Attributes:
        network: its class name.
        input_shapes: shapes of its input tensors.
        plan: the training plan in words; ``"inference"`` without one.
        device: ``"cpu"`` or ``"cuda"``.
        machine: the device's name.
        versions: of PyTorch and what it runs on, by name.
        measured_bytes: the real step's peak of allocated memory.
        measured_tensors_bytes: the peak without what operators take inside themselves; None if the history of
            the CUDA device's memory couldn't be read.
        forecast_bytes: ``Forecast.allocated_peak_bytes``.
        forecast_range_bytes: ``Forecast.allocated_range_bytes``.
        error: of the forecast against ``measured_bytes``.
        tensors_error: against ``measured_tensors_bytes``; None likewise.
        is_in_range: whether ``measured_bytes`` lies in the forecast's range.
        measured_reserved_bytes, forecast_reserved_bytes, reserved_error: likewise of reserved memory; None on
            the CPU.
        inside_operators: bytes at the measured peak that operators took inside themselves, by operator.
        phases: likewise, per phase.
        measured_peak_phase, forecast_peak_phase: where the peaks lie.
    """

    network: str
    input_shapes: tuple[tuple[int, ...], ...]
    plan: str
    device: str
    machine: str
    versions: Mapping[str, str]
    measured_bytes: int
    measured_tensors_bytes: int | None
    forecast_bytes: int
    forecast_range_bytes: tuple[int, int]
    error: float
    tensors_error: float | None
    is_in_range: bool
    measured_reserved_bytes: int | None
    forecast_reserved_bytes: int | None
    reserved_error: float | None
    inside_operators: Mapping[str, int]
    phases: tuple[PhaseCheck, ...]
    measured_peak_phase: str
    forecast_peak_phase: str


@dataclass(frozen=True)
class _Measured:
    """What both ways of measuring tell."""

    peak: int
    tensors: int | None
    reserved: int | None
    inside: Mapping[str, int]
    phase_peaks: Mapping[str, int]
    machine: str
    versions: Mapping[str, str]


def verify(
    model: nn.Module,
    inputs: Inputs,
    plan: TrainingPlan | None = _DEFAULT_PLAN,
    device: Literal["cpu", "cuda"] = "cuda",
) -> Verification:
    """Return the forecast of a step beside its real memory; the model comes back as it was.

    Args:
        model: any eager module.
        inputs: a tensor, a tuple or dict of tensors, or a shape, filled with random numbers.
        plan: the training step; None for inference.
        device: where the step really runs.

    Raises:
        ConvscopeError: the device isn't one of these, there is no CUDA device, or the network can't be
            recorded.

    Example:
        >>> found = verify(nn.ReLU(), (2, 3, 4, 5), None, device="cpu")
        >>> found.measured_bytes, found.forecast_bytes
        (960, 960)
    """
    if device not in ("cpu", "cuda"):
        raise ConvscopeError(f"device {device!r}", "'cpu' or 'cuda'", "choose one of them")
    if device == "cuda":
        require_cuda()
    tape = record(model, inputs, plan, device=device)
    if device == "cpu":
        return _compared(model, plan, tape, forecast(tape), _on_cpu(model, inputs, plan))
    gpu = device_in_use()
    expected = forecast(tape, gpu=gpu.architecture, torch_version=gpu.torch)
    return _compared(model, plan, tape, expected, _on_cuda(model, inputs, plan))


def _on_cpu(model: nn.Module, inputs: Inputs, plan: TrainingPlan | None) -> _Measured:
    found = cpu_truth.measure(model, inputs, plan)
    return _Measured(
        peak=found.peak_bytes,
        tensors=found.tensor_peak_bytes,
        reserved=None,
        inside=found.inside_operators,
        phase_peaks=found.phase_peaks,
        machine=device_name(torch.device("cpu")),
        versions={"PyTorch": torch.__version__, "Python": platform.python_version()},
    )


def _on_cuda(model: nn.Module, inputs: Inputs, plan: TrainingPlan | None) -> _Measured:
    found = cuda_truth.measure(model, inputs, plan)
    peaks: dict[str, int] = {}
    for name, peak in found.phase_peaks.items():
        phase = _TAPES_PHASES.get(name, name)
        peaks[phase] = max(peak, peaks.get(phase, 0))
    versions = {
        "PyTorch": found.device.torch, "CUDA": found.device.cuda, "cuDNN": found.device.cudnn,
        "driver": found.device.driver, "Python": platform.python_version(),
    }  # fmt: skip
    return _Measured(
        peak=found.allocated_peak_bytes,
        tensors=found.without_workspace_peak_bytes,
        reserved=found.reserved_peak_bytes,
        inside={"cudnn_workspace": found.workspace_bytes} if found.workspace_bytes else {},
        phase_peaks=peaks,
        machine=found.device.name,
        versions=versions,
    )


def _compared(
    model: nn.Module, plan: TrainingPlan | None, tape: Tape, expected: Forecast, found: _Measured
) -> Verification:
    low, high = expected.allocated_range_bytes
    highest = _highest_by_phase(expected)
    measured_phase = max(found.phase_peaks, key=lambda phase: found.phase_peaks[phase], default="")
    return Verification(
        network=type(model).__name__,
        input_shapes=tuple(tape.values[value].shape for value in tape.inputs),
        plan=describe(plan),
        device=expected.device,
        machine=found.machine,
        versions=found.versions,
        measured_bytes=found.peak,
        measured_tensors_bytes=found.tensors,
        forecast_bytes=expected.allocated_peak_bytes,
        forecast_range_bytes=(low, high),
        error=expected.allocated_peak_bytes / found.peak - 1,
        tensors_error=_error(expected.allocated_peak_bytes, found.tensors),
        is_in_range=low <= found.peak <= high,
        measured_reserved_bytes=found.reserved,
        forecast_reserved_bytes=expected.reserved_peak_bytes,
        reserved_error=_error(expected.reserved_peak_bytes, found.reserved),
        inside_operators=found.inside,
        phases=tuple(
            PhaseCheck(phase, found.phase_peaks[phase], highest[phase],
                       highest[phase] / found.phase_peaks[phase] - 1)
            for phase in _PHASES
            if found.phase_peaks.get(phase) and phase in highest
        ),
        measured_peak_phase=measured_phase,
        forecast_peak_phase=_TAPES_PHASES.get(expected.peak_phase, expected.peak_phase),
    )  # fmt: skip


def _highest_by_phase(expected: Forecast) -> dict[str, int]:
    highest: dict[str, int] = {}
    for point in expected.timeline:
        phase = _TAPES_PHASES.get(point.phase, point.phase)
        highest[phase] = max(point.allocated_bytes, highest.get(phase, 0))
    return highest


def _error(expected: int | None, measured: int | None) -> float | None:
    return None if expected is None or not measured else expected / measured - 1
