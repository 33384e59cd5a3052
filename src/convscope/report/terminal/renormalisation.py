"""Renormalised filters in the terminal."""

from rich.console import RenderableType

from convscope.core.result import renders
from convscope.report.terminal.tables import findings_by_kind, sections, table, title
from convscope.report.wording.formats import number, write
from convscope.sight import Renormalised, RenormalisedLayer

_COLUMNS = (
    "Layer", "Filters#", "Steps#", "Scaled back#", "Most often#", "RMS at first#", "Largest now#", ""
)  # fmt: skip
_NOTE = "scaled back: share of filters and steps; most often: the filter so most; at first: the median"


@renders(Renormalised)
def render_renormalised(found: Renormalised) -> RenderableType:
    """Return a line for every weight."""
    return sections(
        title(f"Filters kept within an RMS of {number(found.radius)}"),
        table(_COLUMNS, map(_layer, found.layers), note=_NOTE),
        findings_by_kind(found.findings),
    )


def _layer(layer: RenormalisedLayer) -> tuple[object, ...]:
    most = max(range(layer.num_filters), key=lambda index: layer.times[index])
    shared = f"shared with {', '.join(layer.shared_with)}" if layer.shared_with else ""
    return (
        layer.name,
        layer.num_filters,
        layer.num_steps,
        write("percent", layer.share_clipped),
        f"{most} in {layer.times[most]}" if layer.times[most] else "–",
        write("number", layer.first_rms),
        write("number", layer.largest_rms),
        "; ".join(text for text in ("frozen" if layer.frozen else "", shared) if text),
    )
