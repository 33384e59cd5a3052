"""Invariance curves in the terminal: the answer's and every layer's, a table for each transformation."""

from collections.abc import Iterator

from rich.console import Group, RenderableType

from convscope.core.result import renders
from convscope.report.terminal.tables import facts, label, sections, table, title
from convscope.report.wording.formats import number, shape, write
from convscope.sight import Invariance
from convscope.sight.transforming.result import LayerCurve, LayerInvariance, Mean

UNITS = {"translation": "px", "scale": "×", "rotation": "°"}


@renders(Invariance)
def render_invariance(found: Invariance) -> RenderableType:
    """Return the answer's curves, the layers' at their strongest transformation, and what was left out."""
    heading = f"Invariance on {found.num_images} images of {shape(found.image_size)} pixels"
    shown = [
        ("border", {"reflect": "mirrored", "wrap": "wrapped round", "zero": "zeros"}[found.border]),
        ("resampling", found.resampling),
        ("output", found.output or "the network has no class scores"),
        ("class", f"{found.label_source}; intervals are 95 % by Student's t"),
    ]
    return sections(
        title(heading),
        facts(shown),
        *_answers(found),
        *_layers(found),
        Group(*(label(f"left out: {reason}", "dim") for reason in found.left_out))
        if found.left_out
        else None,
    )


def _answers(found: Invariance) -> Iterator[RenderableType]:
    for curve in found.answers:
        rows = [
            (
                f"{point.amount:g} {UNITS[curve.kind]}",
                _mean(point.probability),
                write("percent", point.unchanged),
            )
            for point in curve.points
        ]
        yield table((curve.kind.capitalize(), "Probability#", "Same answer#"), rows)


def _layers(found: Invariance) -> Iterator[RenderableType]:
    columns = (
        "Layer",
        "Amount#",
        "Distance#",
        "Of other images#",
        "Moved back#",
        "Compared#",
        "Steadiest units",
    )
    for kind in dict.fromkeys(curve.kind for layer in found.layers for curve in layer.curves):
        rows = [row for layer in found.layers for row in _rows(layer, kind)]
        yield table((f"{kind.capitalize()}: layer", *columns[1:]), rows, note=_NOTE)


_NOTE = (
    "distance: ‖f(Tx) − f(x)‖ / ‖f(x)‖; of other images: in units of the distance between different images; "
    "moved back: the same after the map is taken back, where it sees the image"
)


def _rows(layer: LayerInvariance, kind: str) -> Iterator[tuple[object, ...]]:
    """The amount with the largest distance, of each layer."""
    for curve in layer.curves:
        if curve.kind != kind:
            continue
        point = max(curve.points, key=lambda point: point.distance.value or 0.0)
        yield (
            layer.name,
            f"{point.amount:g} {UNITS[kind]}",
            _mean(point.distance),
            write("number", point.against_others),
            _mean(point.residual),
            write("percent", point.compared),
            _steadiest(curve),
        )


def _steadiest(curve: LayerCurve) -> str:
    return "" if curve.units is None else ", ".join(map(str, curve.units.most_invariant[:3]))


def _mean(mean: Mean | None) -> str:
    if mean is None or mean.value is None:
        return "–"
    if mean.low is None or mean.high is None:
        return number(mean.value)
    return f"{mean.value:.3f} ± {(mean.high - mean.low) / 2:.3f}"
