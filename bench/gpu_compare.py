"""The memory forecast, against what was measured on a GPU.

Errors are signed: above zero the forecast is higher. *Allocated* compares the forecast that has no cuDNN
workspace with the highest sum of all other blocks that the recorded history of the same step holds; the
measured peak itself, workspace included, should lie in the forecast's range. Nothing is tuned per row.
"""

import gc
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.clock import markdown
from bench.flops import define_torchvision_operators
from bench.gpu_rows import Row, row_of
from convscope.core.errors import ConvscopeError
from convscope.core.units import MIB
from convscope.cost.memory.forecast import forecast
from convscope.cost.memory.values import Forecast
from convscope.networks import load
from convscope.tape import record

Forecaster = Callable[[Row, dict[str, Any]], Forecast]
"""Returns the forecast of a row on the machine that a file's header describes."""


@dataclass(frozen=True)
class Compared:
    """One step, measured and forecast.

    Attributes:
        row: the step.
        allocated_bytes: measured, cuDNN's workspace included.
        workspace_bytes: of it cuDNN's at the peak; None if the history couldn't be read.
        allocated_error: of the forecast without workspace, as a share; None likewise.
        range_bytes: (low, high) of the forecast.
        reserved_error: of the reserved peak, as a share; None without a forecast.
        phases: in which the peak lies, measured and forecast.
    """

    row: Row
    allocated_bytes: int
    workspace_bytes: int | None
    allocated_error: float | None
    range_bytes: tuple[int, int]
    reserved_error: float | None
    phases: tuple[str, str]

    @property
    def is_inside(self) -> bool:
        """Whether the measured peak lies in the forecast's range."""
        return self.range_bytes[0] <= self.allocated_bytes <= self.range_bytes[1]

    @property
    def width(self) -> float:
        """Of the range, as a share of the measured peak."""
        return (self.range_bytes[1] - self.range_bytes[0]) / self.allocated_bytes


@dataclass(frozen=True)
class Comparison:
    """A file of measurements against the forecasts.

    Attributes:
        header: the machine, as the file has it.
        compared: the steps, in the file's order.
        refused: label and reason of steps that couldn't be forecast.
    """

    header: dict[str, Any]
    compared: tuple[Compared, ...]
    refused: tuple[tuple[str, str], ...]


def forecast_of(row: Row, header: dict[str, Any]) -> Forecast:
    """Return convscope's forecast of a row for a file's GPU and version of PyTorch."""
    _importable_torchvision()
    model, shape = load(row.network, batch=row.batch)
    gpu = "sm" + header["compute_capability"].replace(".", "")
    found = forecast(record(model, shape, row.plan), gpu=gpu, torch_version=header["torch"])
    gc.collect()
    return found


def compare(path: Path, forecaster: Forecaster = forecast_of) -> Comparison:
    """Return every step of a file beside its forecast.

    Raises:
        ConvscopeError: the file can't be read.
    """
    header, entries = read_truth(path)
    compared: list[Compared] = []
    refused: list[tuple[str, str]] = []
    for entry in entries:
        row = row_of(entry)
        try:
            compared.append(_compared(row, entry, forecaster(row, header)))
        except ConvscopeError as error:
            refused.append((row.label, str(error)))
    return Comparison(header, tuple(compared), tuple(refused))


def read_truth(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a file's header and the entries of its rows.

    Raises:
        ConvscopeError: it is absent, damaged, or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = content.pop("rows")
        for entry in entries:
            row_of(entry)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConvscopeError(
            f"measurements {str(path)!r} can't be read ({type(error).__name__}: {error})",
            "a file that python -m bench.gpu_truth measure wrote",
            "choose another one",
        ) from error
    return content, entries


def report(comparison: Comparison) -> str:
    """Return the comparison as Markdown: what it comes to, then every step."""
    header, compared = comparison.header, comparison.compared
    machine = f"{header['gpu']}, PyTorch {header['torch']}, CUDA {header['cuda']}, cuDNN {header['cudnn']}"
    parts = [f"{machine}: {len(compared)} steps."]
    if compared:
        parts += [_summary(compared), _table(compared)]
    if comparison.refused:
        parts.append(
            "Not forecast:\n\n" + "\n".join(f"- {label}: {why}" for label, why in comparison.refused)
        )
    return "\n\n".join(parts) + "\n"


@cache
def _importable_torchvision() -> torch.library.Library | None:
    """Its operators by name only, where there is no build of it for the PyTorch at hand."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # an operator doesn't exist
        return define_torchvision_operators()
    except ImportError:  # its networks are named as not forecast
        pass
    return None


def _compared(row: Row, entry: dict[str, Any], found: Forecast) -> Compared:
    without = entry["without_workspace_peak_bytes"]
    phases = entry["phase_peaks"]
    return Compared(
        row=row,
        allocated_bytes=entry["allocated_peak_bytes"],
        workspace_bytes=entry["workspace_bytes"],
        allocated_error=_error(found.allocated_peak_bytes, without),
        range_bytes=found.allocated_range_bytes,
        reserved_error=_error(found.reserved_peak_bytes, entry["reserved_peak_bytes"]),
        phases=(max(phases, key=phases.__getitem__, default=""), found.peak_phase),
    )


def _error(forecast_bytes: int | None, measured: int | None) -> float | None:
    return None if forecast_bytes is None or not measured else forecast_bytes / measured - 1


def _summary(compared: Sequence[Compared]) -> str:
    allocated = [row.allocated_error for row in compared if row.allocated_error is not None]
    reserved = [row.reserved_error for row in compared if row.reserved_error is not None]
    inside = sum(row.is_inside for row in compared)
    rows = [
        ("allocated without workspace", str(len(allocated)), *_median_and_worst(allocated)),
        ("reserved", str(len(reserved)), *_median_and_worst(reserved)),
    ]
    table = markdown(("", "steps", "median error", "median of absolutes", "worst"), rows)
    width = median(row.width for row in compared)
    return (
        f"{table}\n\nThe measured peak lies in the forecast's range in {inside} of {len(compared)} steps "
        f"({inside / len(compared):.0%}); the range's median width is {width:.1%} of the peak."
    )


def _median_and_worst(errors: list[float]) -> tuple[str, str, str]:
    if not errors:
        return "–", "–", "–"
    worst = max(errors, key=abs)
    return f"{median(errors):+.2%}", f"{median(map(abs, errors)):.2%}", f"{worst:+.2%}"


def _table(compared: Sequence[Compared]) -> str:
    header = (
        "step",
        "allocated (MiB)",
        "workspace (MiB)",
        "error without it",
        "range (MiB)",
        "inside",
        "reserved error",
        "peak phase: measured, forecast",
    )
    return markdown(header, [_cells(row) for row in compared])


def _cells(row: Compared) -> tuple[str, ...]:
    low, high = row.range_bytes
    return (
        row.row.label,
        f"{row.allocated_bytes / MIB:.1f}",
        "–" if row.workspace_bytes is None else f"{row.workspace_bytes / MIB:.1f}",
        "–" if row.allocated_error is None else f"{row.allocated_error:+.2%}",
        f"{low / MIB:.1f} to {high / MIB:.1f}",
        "yes" if row.is_inside else "no",
        "–" if row.reserved_error is None else f"{row.reserved_error:+.2%}",
        ", ".join(phase or "–" for phase in row.phases),
    )
