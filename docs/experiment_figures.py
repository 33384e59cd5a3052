"""The figures of an experiment's page: the comparison's own charts, drawn on white as SVG."""

import re
from collections.abc import Iterator
from typing import Any

import vl_convert

from convscope.checkup.observed.run import Percentiles
from convscope.report.charts.experiment import experiment_charts
from convscope.report.pages.fields import at
from convscope.train.comparing import Comparison

_WIDTH = 700
_PADDING = {"left": 30, "right": 12, "top": 6, "bottom": 6}
_CAPTIONS = {
    "validation-error": ("Validation error: mean over seeds in its 95 % band; dashed: the target.",
                         "validation images wrong"),
    "training-loss": ("Training loss: mean over seeds in its 95 % band.", "training loss, nats"),
    "final-errors": ("Final error: every seed a dot, the mean a stroke, its 95 % interval a line.", None),
    "steps-to-target": ("Steps to the target; an open arrow is a run that ended without reaching it.", None),
}  # fmt: skip


def figures(found: Comparison) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield name, picture and caption of each figure: the page's own charts, drawn on white."""
    content = found.to_dict()
    specs = experiment_charts(content)
    watched = {verdict.claim.measure.quantity.split(".")[0] for verdict in found.verdicts}
    watched_rows = deepest(found) if "percentiles" in watched else {}
    heights = [end for row in watched_rows.values() for end in (*row.low, *row.high)]
    ends = [min(heights, default=0), max(heights, default=1)]
    for name, spec in specs.items():
        if name.startswith("percentiles-"):
            if not watched_rows:
                continue
            arm = found.arms[int(name.split("-")[1])]
            layer = watched_rows[arm.name].path
            spec = {**spec, "params": [_chosen(each, layer) for each in spec["params"]]}
            for each in spec["layer"]:
                each["encoding"]["y"]["scale"] = {"domain": ends, "nice": True}
            caption = (
                f"Percentiles (15, 50, 85) over training of what one unit puts out in {layer}: {arm.name}."
            )
            y = None
        elif name in _CAPTIONS:
            caption, y = _CAPTIONS[name]
        else:
            continue
        drawn = _titled(_filled(spec, {"comparison": content}), y)
        fit = {"type": "fit-x", "contains": "padding"}
        # Texts are measured by another font than a reader's browser has: they get room.
        legend = {**drawn["config"]["legend"], "labelLimit": 300}
        # Hundreds of points with a label each would make the file; the caption says what it shows.
        drawn["config"] = {**drawn["config"], "font": "sans-serif", "legend": legend, "aria": False}
        sized = {**drawn, "width": _WIDTH, "autosize": fit, "background": "white", "padding": _PADDING}
        yield name, (vl_convert.vegalite_to_svg(sized), caption)


def deepest(found: Comparison) -> dict[str, Percentiles]:
    """Return of each arm the row of its last layer whose number (``fc3``, ``norm3``) all arms have."""
    rows = {
        arm.name: {re.sub(r"\D", "", row.path): row for row in arm.percentiles if row.of == "output"}
        for arm in found.arms
        if arm.percentiles
    }
    shared = set.intersection(*map(set, rows.values())) if rows else set()
    return {name: own[max(shared)] for name, own in rows.items()} if shared else {}


def _chosen(parameter: dict[str, Any], layer: str) -> dict[str, Any]:
    """The choice of the page's reader, made."""
    return {**parameter, "value": layer} if parameter["name"] == "watched" else parameter


def _filled(part: Any, data: dict[str, Any]) -> Any:
    """A specification with the data that it names in their places."""
    if isinstance(part, list):
        return [_filled(item, data) for item in part]
    if not isinstance(part, dict):
        return part
    if "$field" not in part:
        return {name: _filled(item, data) for name, item in part.items()}
    value = at(data, part["$field"])
    return value if isinstance(value, list) else [value]


def _titled(part: Any, y: str | None) -> Any:
    """A chart of curves with the titles that the page says beside it."""
    if y is None:
        return part
    for layer in part["layer"]:
        encoding = layer["encoding"]
        if "x" in encoding:
            encoding["x"] = {**encoding["x"], "title": "optimizer steps"}
        encoding["y"] = {**encoding["y"], "title": y}
    return part
