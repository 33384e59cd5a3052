"""A memory forecast beside the memory that a real step took, in the terminal."""

from rich.console import RenderableType

from convscope.core.result import renders
from convscope.core.units import format_bytes
from convscope.cost.measured.verification import Verification
from convscope.report.terminal.tables import facts, sections, table, title
from convscope.report.wording.cost_grid import Grid
from convscope.report.wording.formats import MISSING, shape, signed

_COLUMNS = ("", "Measured#", "Forecast#", "Error#")
_NOTE = "error = forecast / measured − 1; whole batch; 1 MiB = 1,048,576 B"

_NOT_ON_CPU = "; what they take depends on the processor, and isn't forecast on the CPU"


@renders(Verification)
def render_verification(found: Verification) -> RenderableType:
    """Return the peaks, the phases, what operators took inside themselves, and where it was measured."""
    grid = verification_grid(found)
    return sections(
        title(verification_title(found)),
        table(grid.columns, grid.rows, note=grid.note),
        facts(verification_facts(found)),
    )


def verification_title(found: Verification) -> str:
    """Return the heading of a verification."""
    inputs = ", ".join(map(shape, found.input_shapes))
    return f"{found.network}: memory of a real step ({inputs}), {found.plan}, on {found.device}"


def verification_grid(found: Verification) -> Grid:
    """Return the peaks and the phases, measured and forecast."""
    return Grid(_COLUMNS, tuple(_rows(found)), note=_NOTE)


def _rows(found: Verification) -> list[tuple[str, ...]]:
    inside = "workspaces" if found.device == "cuda" else "blocks inside operators"
    rows = [
        _row("peak of allocated memory", found.measured_bytes, found.forecast_bytes, found.error),
        _row(f"  without {inside}", found.measured_tensors_bytes, found.forecast_bytes, found.tensors_error),
    ]
    if found.device == "cuda":
        rows.append(
            _row(
                "peak of reserved memory",
                found.measured_reserved_bytes,
                found.forecast_reserved_bytes,
                found.reserved_error,
            )
        )
    rows += [
        _row(f"peak in {phase.phase}", phase.measured_bytes, phase.forecast_bytes, phase.error)
        for phase in found.phases
    ]
    return rows


def _row(name: str, measured: int | None, forecast: int | None, error: float | None) -> tuple[str, ...]:
    return (
        name,
        MISSING if measured is None else format_bytes(measured),
        MISSING if forecast is None else format_bytes(forecast),
        MISSING if error is None else signed(error, lambda share: f"{100 * share:.2f} %"),
    )


def verification_facts(found: Verification) -> list[tuple[str, str]]:
    """Return what operators took inside themselves, and where it was measured."""
    low, high = map(format_bytes, found.forecast_range_bytes)
    inside = ", ".join(f"{name} {format_bytes(size)}" for name, size in found.inside_operators.items())
    spread = f"{low} to {high}: the measured peak is {_place(found)}"
    return [
        *([] if found.device == "cpu" else [("forecast range", spread)]),
        (
            "inside operators",
            f"{inside or 'nothing'} at the peak{_NOT_ON_CPU if found.device == 'cpu' else ''}",
        ),
        ("peak", f"measured in {found.measured_peak_phase}, forecast in {found.forecast_peak_phase}"),
        ("on", found.machine),
        ("versions", ", ".join(f"{name} {version}" for name, version in found.versions.items() if version)),
    ]


def _place(found: Verification) -> str:
    if found.is_in_range:
        return "in it"
    return "above it" if found.measured_bytes > found.forecast_range_bytes[1] else "below it"
