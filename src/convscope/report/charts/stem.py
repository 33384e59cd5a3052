"""The first layer's and the strides' pictures, as Vega-Lite specifications with data from the page's JSON.

What each strided operator folds into false frequencies; which frequencies the filters cover; how far each
layer's maps are off when the image moves by a pixel.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from convscope.report.charts.frame import ACCENT, QUIET, RULE, SECOND, Spec, field, frame
from convscope.report.wording.addresses import operator_label

_SHARES = {
    "share": ("as the network has it", ACCENT),
    "activated": ("behind the activation", SECOND),
    "blurred": ("with a blur before it", QUIET),
}
_ROW = 30
_TWO_LINES = "split(replace(datum.label, ' – ', '– '), ' ')"
_NAMED = 16  # layers whose names there is room for
_SHARE_AXIS = {"format": ".3~%"}


def stem_charts(stem: Mapping[str, Any]) -> dict[str, Spec]:
    """Return the specifications of the charts that a stem's data allows, by name.

    Args:
        stem: a :class:`~convscope.sight.Stem` as plain values; it lies at ``stem`` in the page.
    """
    specs = {"stem-coverage": coverage_chart()}
    measured = [each for each in stem["operators"] if each["share"]]
    if measured:
        labels = {each["address"]: operator_label(each["name"], each["address"]) for each in measured}
        specs["stem-aliasing"] = aliasing_chart(labels)
    if any(each["distance"] is not None for each in stem["shifts"]["layers"]):
        names = [operator_label(each["name"], each["address"]) for each in stem["shifts"]["layers"]]
        specs["stem-shifts"] = shifts_chart(names)
    return specs


def aliasing_chart(labels: Mapping[str, str]) -> Spec:
    """Return the chart of what each strided operator folds: medians over channels, quartiles of the first.

    Args:
        labels: of the operators that have a share, by their addresses.
    """
    data = field("stem.operators")
    known: list[Spec] = [{"filter": "datum.share != null"}]
    label = f"({json.dumps(labels)})[datum.label] || datum.label"
    y: Spec = {"field": "address", "type": "nominal", "sort": None, "title": None,
         "axis": {"labelLimit": 240, "labelExpr": label}}  # fmt: skip
    x: Spec = {"type": "quantitative", "title": "energy beyond Nyquist’s frequency", "axis": _SHARE_AXIS,
         "scale": {"domainMin": 0}}  # fmt: skip
    names = {name: look[0] for name, look in _SHARES.items()}
    fold = " : ".join(f"datum.key === '{name}' ? '{text}'" for name, text in names.items()) + " : ''"
    rows: list[Spec] = [
        *known,
        *({"calculate": f"datum.{name} ? datum.{name}.median : null", "as": f"m_{name}"} for name in names),
        {"fold": [f"m_{name}" for name in names], "as": ["folded", "median"]},
        {"filter": "datum.median != null"},
        {"calculate": "slice(datum.folded, 2)", "as": "key"},
        {"calculate": fold, "as": "which"},
        {"calculate": "datum.kind + ' ' + join(datum.kernel, '×') + ', stride ' + join(datum.stride, '×')",
         "as": "what"},
    ]  # fmt: skip
    quartiles = {
        "data": data,
        "transform": [
            *known,
            {"calculate": "datum.share.low", "as": "low"},
            {"calculate": "datum.share.high", "as": "high"},
        ],
        "mark": {"type": "rule", "strokeWidth": 5, "opacity": 0.3, "color": ACCENT},
        "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}},
    }
    points = {
        "data": data,
        "transform": rows,
        "mark": {"type": "point", "filled": True, "size": 80, "opacity": 0.95},
        "encoding": {
            "y": y,
            "x": {**x, "field": "median"},
            "color": {
                "field": "which",
                "type": "nominal",
                "scale": {
                    "domain": [look[0] for look in _SHARES.values()],
                    "range": [look[1] for look in _SHARES.values()],
                },
                "legend": {"title": None, "symbolType": "circle"},
            },
            "tooltip": [
                {"field": "name", "title": "operator"},
                {"field": "what", "title": "what"},
                {"field": "which", "title": "which"},
                {"field": "median", "title": "median channel", "format": ".1%"},
            ],
        },
    }
    return frame([quartiles, points], max(70, _ROW * len(labels)), [])


def coverage_chart() -> Spec:
    """Return the chart of the filters' energy by octave, beside even coverage and random weights."""
    data = field("stem.coverage.octaves")
    low, high = "format(datum.low, '.3~f')", "format(datum.high, '.3~f')"
    # The last one holds the corners of the square of frequencies, too, whose edge is at a half.
    band = f"datum.high > 0.5 ? 'over ' + {low} : (datum.low ? {low} + ' – ' : 'under ') + {high}"
    rows: list[Spec] = [{"calculate": band, "as": "band"}]
    x: Spec = {"field": "band", "type": "nominal", "sort": None, "title": "cycles per pixel",
         "axis": {"labelAngle": 0, "labelExpr": _TWO_LINES}}  # fmt: skip
    y: Spec = {"type": "quantitative", "title": "share of the filters’ energy", "axis": _SHARE_AXIS}
    tooltip = [
        {"field": "band", "title": "cycles per pixel"},
        *(
            {"field": name, "title": title, "format": ".1%"}
            for name, title in (
                ("share", "these filters"), ("reference", "Gabor filters"), ("random", "random weights"),
            )
        ),
    ]  # fmt: skip
    scale: Spec = {
        "domain": ["these filters", "even coverage", "random weights"],
        "range": [ACCENT, RULE, QUIET],
    }
    legend = {"title": None, "symbolType": "square"}

    def color(name: str) -> Spec:
        return {"datum": name, "type": "nominal", "scale": scale, "legend": legend}

    bars: Spec = {
        "data": data,
        "transform": rows,
        "mark": {"type": "bar", "width": {"band": 0.6}},
        "encoding": {
            "x": x,
            "y": {**y, "field": "share"},
            "color": color("these filters"),
            "tooltip": tooltip,
        },
    }
    ticks: list[Spec] = [
        {
            "data": data,
            "transform": rows,
            "mark": {"type": "tick", "thickness": 3, "width": {"band": 0.85}},
            "encoding": {"x": x, "y": {**y, "field": name}, "color": color(title), "tooltip": tooltip},
        }
        for name, title in (("reference", scale["domain"][1]), ("random", scale["domain"][2]))
    ]
    return frame([bars, *ticks], 220, [])


def shifts_chart(names: Sequence[str]) -> Spec:
    """Return the chart of how far each layer's maps are off after a shift of the image by one pixel.

    Args:
        names: of the layers, in order; a few are written at the axis, of many their numbers.
    """
    data = field("stem.shifts.layers")
    rows: list[Spec] = [
        {"window": [{"op": "row_number", "as": "number"}]},
        {"filter": "datum.distance != null"},
        {"calculate": "join(datum.stride, '×')", "as": "step"},
        {"calculate": "datum.sees_border ? 'sees the border' : 'inside'", "as": "where"},
    ]
    x: Spec = {
        "field": "number",
        "type": "quantitative",
        "title": "layer, in order",
        "axis": {"tickMinStep": 1, "format": "d", "grid": False},
        "scale": {"zero": False, "nice": False},
    }
    if len(names) <= _NAMED:
        x["axis"] |= {"labelExpr": f"{json.dumps(list(names))}[datum.value - 1] || ''", "labelAngle": -40,
                      "labelLimit": 110, "values": {"expr": f"sequence(1, {len(names) + 1})"}}  # fmt: skip
    y: Spec = {"type": "quantitative", "title": "off, relative to the maps", "scale": {"domainMin": 0}}
    tooltip = [
        {"field": "name", "title": "layer"},
        {"field": "step", "title": "pixels a step"},
        {"field": "distance", "title": "off, maps moved", "format": ".2~f"},
        {"field": "change", "title": "off, maps as they are", "format": ".2~f"},
        {"field": "where", "title": "positions"},
    ]
    scale: Spec = {"domain": ["maps moved", "maps as they are"], "range": [ACCENT, QUIET]}

    def color(index: int) -> Spec:
        return {
            "datum": scale["domain"][index],
            "type": "nominal",
            "scale": scale,
            "legend": {"title": None, "symbolType": "stroke", "symbolSize": 220},
        }

    lines: list[Spec] = [
        {
            "data": data,
            "transform": rows,
            "mark": {"type": "line", "strokeWidth": 2, "point": {"size": 34, "filled": True}},
            "encoding": {"x": x, "y": {**y, "field": name}, "color": color(index), "tooltip": tooltip},
        }
        for index, name in ((1, "change"), (0, "distance"))
    ]
    return frame(lines, 220, [])
