"""The real time of a network's rows in the terminal: the slowest first."""

from rich.console import RenderableType

from convscope.core.result import renders
from convscope.core.units import format_count
from convscope.cost.measured.values import RowTiming, Seconds, Timings
from convscope.report.terminal.tables import facts, sections, table, title
from convscope.report.wording.cost_grid import Grid
from convscope.report.wording.formats import MISSING, counted, percent, seconds, shape, signed

_NUM_ROWS = 20
_NUM_BETWEEN = 5
_BAR = 24
_COLUMNS = ("Row", "", "Forward#", "Backward#", "FLOPs#", "FLOP/s#", "Share#", "")
_NOTE = "medians, whole batch; rows, time between operators and the optimizer add up to the total"


@renders(Timings)
def render_timings(timings: Timings) -> RenderableType:
    """Return the slowest rows with a bar each, what lies between them, and the step that nothing watched."""
    grid = timings_grid(timings)
    return sections(
        title(timings_title(timings)),
        table(grid.columns, grid.rows, note=grid.note),
        facts(between_facts(timings)),
        facts(step_facts(timings)),
    )


def timings_title(timings: Timings) -> str:
    """Return the heading of a timing."""
    inputs = ", ".join(map(shape, timings.input_shapes))
    return f"{timings.network}: measured time of a batch ({inputs}), {timings.plan}"


def timings_grid(timings: Timings) -> Grid:
    """Return the slowest rows."""
    slowest = sorted(timings.rows, key=lambda row: -row.seconds)[:_NUM_ROWS]
    longest = max((row.share for row in slowest), default=0.0)
    return Grid(_COLUMNS, tuple(_row(row, longest) for row in slowest), note=_NOTE)


def _row(row: RowTiming, longest: float) -> tuple[str, ...]:
    flops = row.forward_flops + row.backward_flops
    return (
        row.address,
        row.op,
        seconds(row.forward.median),
        seconds(row.backward.median) if row.backward.high else MISSING,
        format_count(flops) if flops else MISSING,
        MISSING if row.flops_per_second is None else format_count(row.flops_per_second),
        percent(row.share),
        "█" * round(_BAR * row.share / longest) if longest else "",
    )


def between_facts(timings: Timings) -> list[tuple[str, str]]:
    """Return what the slowest rows leave of the whole time."""
    lines, num_hidden = [], len(timings.rows) - _NUM_ROWS
    if num_hidden > 0:
        hidden = sorted(timings.rows, key=lambda row: -row.seconds)[_NUM_ROWS:]
        taken = sum(row.seconds for row in hidden)
        lines.append((f"{counted(num_hidden, 'other rows')}", seconds(taken)))
    lines += [(_between(each.path), seconds(each.seconds.median)) for each in timings.between[:_NUM_BETWEEN]]
    others = timings.between[_NUM_BETWEEN:]
    if others:
        taken = sum(each.seconds.median for each in others)
        lines.append((f"between operators, {counted(len(others), 'other places')}", seconds(taken)))
    if timings.optimizer.high:
        lines.append(("optimizer", _spread(timings.optimizer)))
    return [*lines, ("total", seconds(timings.seconds))]


def _between(path: str) -> str:
    return "operators without a row" if path == "no row" else f"between operators, {path}"


def step_facts(timings: Timings) -> list[tuple[str, str]]:
    """Return the step that nothing watched, and where it ran."""
    halves = [f"forward {seconds(timings.unwatched_forward.median)}"]
    if timings.unwatched_backward.high:
        halves.append(f"backward {seconds(timings.unwatched_backward.median)}")
    return [
        ("unwatched step", f"{_spread(timings.unwatched)}: {', '.join(halves)}"),
        ("watching adds", signed(timings.added_seconds, seconds)),
        (
            "on",
            f"{timings.device}, {counted(timings.num_threads, 'threads')}, {timings.dtype}, "
            f"PyTorch {timings.torch_version}, {counted(timings.repeats, 'repeats')}",
        ),
    ]


def _spread(time: Seconds) -> str:
    return f"{seconds(time.median)} (quartiles {seconds(time.low)} to {seconds(time.high)})"
