"""What all Vega-Lite charts of a page share: their frame, and how they name their data."""

from collections.abc import Sequence
from typing import Any

Spec = dict[str, Any]

ACCENT, SECOND, RULE, WRONG, QUIET = "#2b8a99", "#c9762b", "#b5542d", "#a33a2c", "#888"
"""Colours that suit light and dark pages."""


def field(path: str) -> Spec:
    """Return data that the page's script takes from its JSON, from where ``path`` leads.

    Example:
        >>> field("cost.forecast.timeline")
        {'values': {'$field': 'cost.forecast.timeline'}}
    """
    return {"values": {"$field": path}}


def frame(layers: Sequence[Spec], height: int, params: Sequence[Spec] = (), **legend: Any) -> Spec:
    """Return a chart as wide as its place.

    Args:
        layers: what is drawn, one above the other.
        height: of the area that is drawn on, in pixels.
        params: what the reader can choose.
        **legend: settings of legends.
    """
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "height": height,
        "background": "transparent",
        "autosize": {"type": "fit-x", "contains": "padding"},
        **({"params": list(params)} if params else {}),
        "layer": list(layers),
        "config": {
            "view": {"stroke": None},
            "font": "system-ui, sans-serif",
            "axis": {"domain": False, "ticks": False, "labelPadding": 6, "titleFontWeight": "normal",
                     "titlePadding": 10, "gridOpacity": 0.35, "tickCount": 5},
            "legend": {"orient": "top", "symbolStrokeWidth": 2.5, "labelFontSize": 12, **legend},
        },
    }  # fmt: skip


def choice(name: str, first: str, options: Sequence[str], label: str) -> Spec:
    """Return a parameter that the reader chooses from a list below the chart.

    Args:
        name: by which expressions call it.
        first: what is chosen at first.
        options: texts.
        label: what stands before the list.
    """
    return {
        "name": name,
        "value": first,
        "bind": {"input": "select", "options": list(options), "name": label},
    }
