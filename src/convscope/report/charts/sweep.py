"""The plot of a sweep: memory above, work below, over what was varied; a Vega-Lite specification."""

from collections.abc import Sequence
from typing import Any

from convscope.core.units import MIB
from convscope.cost import AXES, Sweep

Spec = dict[str, Any]

_MEMORY = {
    "reserved_peak_bytes": ("reserved peak", "#c9762b", [1, 0]),
    "allocated_peak_bytes": ("allocated peak", "#2b8a99", [1, 0]),
    "rule_of_thumb_bytes": ("rule of thumb", "#b5542d", [6, 4]),
    "saved_bytes": ("saved for backward", "#7a6fb0", [1, 0]),
}
_WORK = {
    "step_flops": ("forward and backward", "#2b8a99", [1, 0]),
    "forward_flops": ("forward", "#7a6fb0", [1, 0]),
}
_GIGA = 10**9
_WIDTH, _HEIGHT = 560, 240


def sweep_chart(sweep: Sweep) -> Spec:
    """Return the specification, with its data in it.

    Both axes start at 0, so that what is proportional to the batch is a straight line and what stays at
    batch 0 (parameters, optimizer states) is where it meets the axis.
    """
    trained = any(point.summary.backward_flops for point in sweep.points)
    memory = {name: look for name, look in _MEMORY.items() if trained or name != "saved_bytes"}
    work = _WORK if trained else {"forward_flops": _WORK["forward_flops"]}
    title = f"{sweep.network}: cost over {sweep.axis}, {sweep.plan}, on {sweep.device}"
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "title": {"text": title, "anchor": "start"},
        "vconcat": [
            _panel(sweep, memory, MIB, "memory (MiB)", "MiB"),
            _panel(sweep, work, _GIGA, "work (GFLOPs, whole batch)", "GFLOPs"),
        ],
        "resolve": {"scale": {"color": "independent", "strokeDash": "independent"}},
        "config": {
            "font": "system-ui, sans-serif",
            "view": {"stroke": None},
            "axis": {"domain": False, "ticks": False, "titleFontWeight": "normal", "gridOpacity": 0.35},
            "legend": {"orient": "right", "title": None, "symbolType": "stroke", "symbolSize": 220},
        },
    }


def _panel(sweep: Sweep, lines: dict[str, Any], unit: int, title: str, short: str) -> Spec:
    values = [
        {
            "varied": _named(sweep.axis),
            "x": point.value,
            "y": number / unit,
            "unit": short,
            "line": lines[name][0],
            "peak": point.summary.peak_phase,
        }
        for point in sweep.points
        for name in lines
        if (number := getattr(point.summary, name)) is not None
    ]
    shown = [look for look in lines.values() if any(value["line"] == look[0] for value in values)]
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "data": {"values": values},
        "mark": {"type": "line", "point": {"size": 36, "filled": True}, "strokeWidth": 2},
        "encoding": {
            "x": {"field": "x", "type": "quantitative", "title": _named(sweep.axis)},
            "y": {
                "field": "y",
                "type": "quantitative",
                "title": title,
                "scale": {"zero": True},
                "axis": {"format": ",~r"},
            },
            "color": _scale("color", shown),
            "strokeDash": _scale("strokeDash", shown),
            "tooltip": [
                {"field": "line", "title": "what"},
                {"field": "x", "title": sweep.axis},
                {"field": "y", "title": short, "format": ",.1f"},
                {"field": "peak", "title": "peak in"},
            ],
        },
    }


def _named(axis: str) -> str:
    return f"{AXES[axis].noun} ({AXES[axis].unit})" if axis in AXES else axis


def _scale(channel: str, lines: Sequence[tuple[str, str, list[int]]]) -> Spec:
    looks = [look[1] if channel == "color" else look[2] for look in lines]
    scale = {"domain": [look[0] for look in lines], "range": looks}
    return {"field": "line", "type": "nominal", "scale": scale}
