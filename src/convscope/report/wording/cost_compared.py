"""Networks side by side and sweeps as texts in a grid, for the terminal and for notebooks alike."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from convscope.core.units import format_bytes, format_count
from convscope.cost import AXES, NetworkCost, SideBySide, Summary, Sweep
from convscope.report.wording.cost_grid import Grid, without
from convscope.report.wording.formats import MISSING, number, percent, ratio, shape

_REFUSED = "not read"


@dataclass(frozen=True)
class _Line:
    """A number of a summary: its title, its field and how it is written; ``trained``: not of inference."""

    title: str
    field: str
    write: Callable[[float], str]
    trained: bool = False


_LINES = (
    _Line("Parameters", "params", format_count),
    _Line("MACs", "macs", format_count),
    _Line("Backward FLOPs", "backward_flops", format_count, trained=True),
    _Line("Step FLOPs", "step_flops", format_count, trained=True),
    _Line("Elementwise ops", "elementwise_ops", format_count),
    _Line("Activations", "activations", format_count),
    _Line("Saved bytes", "saved_bytes", format_bytes, trained=True),
    _Line("Rule of thumb", "rule_of_thumb_bytes", format_bytes),
    _Line("Allocated peak", "allocated_peak_bytes", format_bytes),
    _Line("  at most", "allocated_high_bytes", format_bytes),
    _Line("Reserved peak", "reserved_peak_bytes", format_bytes),
    _Line("  at most", "reserved_high_bytes", format_bytes),
)
_SWEPT = (
    "params", "macs", "step_flops", "activations", "saved_bytes", "rule_of_thumb_bytes",
    "allocated_peak_bytes", "reserved_peak_bytes",
)  # fmt: skip
OPTIONAL = ("activations", "step_flops", "saved_bytes", "params", "rule_of_thumb_bytes")
"""Columns of a sweep that a narrow place leaves out, the first one first."""


def side_by_side_grids(found: SideBySide, per_grid: int = 4) -> list[Grid]:
    """Return grids with one network a column, so many beside one another in each."""
    networks = found.networks
    parts = [networks[start : start + per_grid] for start in range(0, len(networks), per_grid)]
    return [_beside(part, found) for part in parts]


def sweep_grid(sweep: Sweep, hidden: Collection[str] = ()) -> Grid:
    """Return a grid with one line per point.

    Args:
        sweep: what to show.
        hidden: fields to leave out, of those in :data:`OPTIONAL`.
    """
    summaries = [point.summary for point in sweep.points]
    fields = [field for field in _SWEPT if field not in hidden]
    lines = [line for line in _LINES if line.field in fields and _is_there(line, summaries)]
    left_out = [line.title for line in _LINES if line.field in hidden and _is_there(line, summaries)]
    rows = tuple(
        (number(point.value), *(_write(line, point.summary) for line in lines), point.summary.peak_phase)
        for point in sweep.points
    )
    return Grid(
        (f"{_titled(sweep.axis)}#", *(f"{line.title}#" for line in lines), "Peak in"),
        rows,
        note=without("", left_out),
    )


def _titled(axis: str) -> str:
    known = AXES.get(axis)
    return axis.capitalize() if known is None else f"{known.noun.capitalize()}, {known.unit}"


def refusals(found: SideBySide | Sweep) -> list[tuple[str, str]]:
    """Return the names of what couldn't be read, with the reasons."""
    return [(f"{_REFUSED}: {each.name}", each.reason) for each in found.refused]


def left_out(summaries: Mapping[str, Summary]) -> list[str]:
    """Return what isn't counted and what was assumed, each with where, unless that is everywhere.

    Args:
        summaries: by what they are called.
    """
    lines: dict[str, list[str]] = {}
    for name, summary in summaries.items():
        for text in (
            *(f"not counted: {each.op} in {each.phase}" for each in summary.uncounted),
            *(f"assumed: {text}" for text in summary.assumptions),
        ):
            lines.setdefault(text, []).append(name)
    texts = [
        text if len(names) == len(summaries) else f"{text} ({', '.join(names)})"
        for text, names in lines.items()
    ]
    return texts if any(s.uncounted for s in summaries.values()) else ["nothing is left uncounted", *texts]


def left_out_beside(found: SideBySide) -> list[str]:
    """Return what :func:`left_out` says of networks."""
    return left_out({each.name: each.summary for each in found.networks})


def left_out_along(sweep: Sweep) -> list[str]:
    """Return what :func:`left_out` says of the points of a sweep."""
    return left_out({f"{sweep.axis} {number(each.value)}": each.summary for each in sweep.points})


def _beside(networks: Sequence[NetworkCost], found: SideBySide) -> Grid:
    lines = [line for line in _LINES if _is_there(line, [each.summary for each in found.networks])]
    compared = len(found.networks) > 1
    words: tuple[tuple[str, Callable[[Summary], str]], ...] = (
        ("Input", lambda summary: ", ".join(map(_compact, summary.input_shapes))),
        ("Peak in", lambda summary: summary.peak_phase),
        ("Stem's share of outputs", lambda summary: _part(summary.stem_share)),
        ("FC share of parameters", lambda summary: _part(summary.linear_share)),
    )
    texts = [(title, *_pairs(map(write, (n.summary for n in networks)), compared)) for title, write in words]
    numbers = [
        (line.title, *(cell for each in networks for cell in _cells(line, each, compared))) for line in lines
    ]
    titles = [title for each in networks for title in (f"{each.name}#", *(["×#"] if compared else []))]
    return Grid(("", *titles), (texts[0], *numbers, *texts[1:]))


def _cells(line: _Line, network: NetworkCost, compared: bool) -> list[str]:
    of_first = network.ratios.get(line.field)
    written = ratio(of_first) if of_first is not None else ""
    return [_write(line, network.summary), *([written] if compared else [])]


def _pairs(texts: "map[str]", compared: bool) -> list[str]:
    return [cell for text in texts for cell in (text, *([""] if compared else []))]


def _write(line: _Line, summary: Summary) -> str:
    value = getattr(summary, line.field)
    return MISSING if value is None else line.write(value)


def _is_there(line: _Line, summaries: Sequence[Summary]) -> bool:
    """Whether a line says anything: inference keeps nothing, and some numbers aren't forecast."""
    if line.trained and not any(summary.saved_bytes or summary.backward_flops for summary in summaries):
        return False
    return any(getattr(summary, line.field) is not None for summary in summaries)


def _part(share: float | None) -> str:
    return MISSING if share is None else percent(share)


def _compact(size: tuple[int, ...]) -> str:
    return shape(size).replace(" ", "")
