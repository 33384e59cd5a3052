"""Whether a network keeps to its limits, in the terminal."""

from rich.console import Group, RenderableType
from rich.padding import Padding

from convscope.core.result import renders
from convscope.core.units import format_bytes, format_count
from convscope.gate import Check, Gate
from convscope.report.terminal.tables import UNITS_NOTE, label, sections, table, title
from convscope.report.wording.formats import counted, exact, seconds, shape

_COLUMNS = ("Limit", "At most#", "Found#", "", "Of", "Time#")


@renders(Gate)
def render_gate(found: Gate) -> RenderableType:
    """Return a row for each limit, what those that aren't kept consist of, and what none of it rests on."""
    inputs = ", ".join(shape(each) for each in found.input_shapes)
    verdict = "passed" if found.passed else f"{counted(len(found.failed), 'limits')} not kept"
    return sections(
        title(f"{found.network}, input {inputs}: {verdict}"),
        table(_COLUMNS, map(_row, found.checks), note=UNITS_NOTE),
        *(_failure(check) for check in found.failed),
        _caveats(found),
    )


def _row(check: Check) -> tuple[str, ...]:
    verdict = "passed" if check.passed else "FAILED"
    limit, there = (_written(value, check.unit) for value in (check.limit, check.found))
    return check.name, limit, there, verdict, check.method, seconds(check.seconds)


def _failure(check: Check) -> RenderableType:
    return Group(
        label(f"{check.name}: {_written(check.found, check.unit)}", "bold red"),
        *(Padding(label(line), (0, 0, 0, 2)) for line in check.details),
    )


def _caveats(found: Gate) -> RenderableType | None:
    """What wasn't checked, what was assumed, and how a file of weights differs; each once."""
    lines = dict.fromkeys(line for check in found.checks for line in check.caveats)
    differences = found.weights.differences if found.weights is not None else ()
    shown = [label(line, "dim") for line in (*lines, *differences)]
    return Group(*shown) if shown else None


def _written(value: int, unit: str) -> str:
    if unit == "B":
        return format_bytes(value)
    return format_count(value) if value >= 1000 else exact(value)
