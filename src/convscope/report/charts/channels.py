"""Pictures of a batch norm's channels: their statistics beside those of the data, and their gains.

Running statistics against measured ones with error bars, around the line on which they agree; gamma against
beta with the dead channels marked. Both are Vega-Lite specifications that take data from the page's JSON.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from convscope.report.charts.frame import ACCENT, QUIET, WRONG, Spec, choice, field, frame

_ALL = "all batch norms"
_ERRORS = 2  # standard errors that a bar reaches to either side
_FLATTENED = ("number", "mean", "running_mean", "mean_error", "variance", "running_variance",
              "variance_error")  # fmt: skip
_MEANS, _DEVIATIONS = "means", "standard deviations"
_LEAST = 0.05  # half the length of an axis all of whose values are the same
LOOSE = {"zero": False, "nice": True, "padding": 10}
"""A scale from the least to the largest value, with a little room."""

_LAYERS = field("checkup.layers")
_STATES = {"alive": (ACCENT, "circle"), "dead": (WRONG, "cross"), "not known": (QUIET, "circle")}
# Colour and shape of what is known of a channel after the ReLU.


def states_of(layers: Sequence[Mapping[str, Any]]) -> list[str]:
    """What channels there are of, in the order of the legend."""
    known = [each["single"]["dead"] for each in layers]
    there = {
        "alive": any(dead is not None and not all(dead) for dead in known),
        "dead": any(dead is not None and any(dead) for dead in known),
        "not known": any(dead is None for dead in known),
    }
    return [state for state, is_there in there.items() if is_there]


def statistics_chart(addresses: Sequence[str], first: str) -> Spec:
    """Return the chart of measured against running statistics, a point a channel, for a chosen batch norm.

    A point is off the diagonal by what the layer has wrong; bars are two standard errors.

    Args:
        addresses: batch norms to choose from.
        first: the one that is shown at first.
    """
    channels = _channels()
    x = _quantity("running", "running, in the inputs’ unit")
    y = _quantity("measured", "measured, in the inputs’ unit")
    bars = {
        "data": _LAYERS,
        "transform": channels,
        "mark": {"type": "rule", "color": ACCENT, "opacity": 0.55},
        "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
    }
    points = {
        "data": _LAYERS,
        "transform": channels,
        "mark": {"type": "point", "filled": True, "size": 34, "opacity": 0.9, "color": ACCENT},
        "encoding": {
            "x": x,
            "y": y,
            "tooltip": [
                {"field": "number", "title": "channel"},
                {"field": "running", "title": "running", "format": ".4~g"},
                {"field": "measured", "title": "measured", "format": ".4~g"},
                {"field": "low", "title": "− 2 standard errors", "format": ".4~g"},
                {"field": "high", "title": "+ 2 standard errors", "format": ".4~g"},
            ],
        },
    }
    return frame(
        [_diagonal(channels, x, y), bars, points],
        300,
        [choice("layer", first, addresses, "Batch norm "),
         choice("statistic", _MEANS, (_MEANS, _DEVIATIONS), "Statistic ")],
    )  # fmt: skip


def _channels() -> list[Spec]:
    """Rows of the chosen batch norm, one a channel: the statistic running, measured, and how surely."""
    flat = {"flatten": [f"single.{name}" for name in _FLATTENED], "as": list(_FLATTENED)}
    error = f"{_ERRORS} * datum.mean_error"
    factor = f"exp({_ERRORS / 2} * datum.variance_error)"  # of a logarithm of the variance, halved by √
    is_mean = f"statistic === '{_MEANS}'"
    return [
        {"filter": "datum.address === layer && isValid(datum.single) && isValid(datum.single.mean)"},
        flat,
        {"calculate": f"{is_mean} ? datum.running_mean : sqrt(datum.running_variance)", "as": "running"},
        {"calculate": f"{is_mean} ? datum.mean : sqrt(datum.variance)", "as": "measured"},
        {"calculate": f"{is_mean} ? datum.mean - {error} : datum.measured / {factor}", "as": "low"},
        {"calculate": f"{is_mean} ? datum.mean + {error} : datum.measured * {factor}", "as": "high"},
    ]


def _diagonal(rows: list[Spec], x: Spec, y: Spec) -> Spec:
    """Where running and measured statistics are the same: from corner to corner, since both axes share it."""
    ends = [
        {"op": "min", "field": "running", "as": "left"},
        {"op": "max", "field": "running", "as": "right"},
        {"op": "min", "field": "low", "as": "bottom"},
        {"op": "max", "field": "high", "as": "top"},
    ]
    return {
        "data": _LAYERS,
        "transform": [
            *rows,
            {"aggregate": ends},
            {"calculate": "min(datum.left, datum.bottom)", "as": "start"},
            {"calculate": "max(datum.right, datum.top)", "as": "end"},
            *_apart("start", "end"),
        ],
        "mark": {"type": "rule", "color": QUIET, "strokeDash": [4, 3]},
        "encoding": {
            "x": {**x, "field": "least"},
            "x2": {"field": "most"},
            "y": {**y, "field": "least"},
            "y2": {"field": "most"},
        },
    }


def _apart(start: str, end: str, names: Sequence[str] = ("least", "most")) -> list[Spec]:
    """Ends of an axis that has some length, also where all values are the same."""
    middle = f"(datum.{start} + datum.{end}) / 2"
    half = f"max((datum.{end} - datum.{start}) / 2, 0.05 * abs({middle}), {_LEAST})"
    return [
        {"calculate": f"{middle} - {half}", "as": names[0]},
        {"calculate": f"{middle} + {half}", "as": names[1]},
    ]


def _quantity(name: str, title: str) -> Spec:
    return {"field": name, "type": "quantitative", "title": title, "scale": LOOSE}


def gains_chart(addresses: Sequence[str], states: Sequence[str] = tuple(_STATES)) -> Spec:
    """Return the chart of γ against β, a point a channel, for all batch norms or a chosen one.

    Args:
        addresses: batch norms to choose from.
        states: what channels there are of: alive, dead, not known.
    """
    dead = "datum.dead === true ? 'dead' : datum.dead === false ? 'alive' : 'not known'"
    rows: list[Spec] = [
        {"filter": f"(shown === '{_ALL}' || datum.address === shown) && isValid(datum.single.gamma)"},
        {"calculate": "isValid(datum.single.dead) ? datum.single.dead : []", "as": "known"},
        {
            "flatten": ["single.number", "single.gamma", "single.beta", "known"],
            "as": ["number", "gamma", "beta", "dead"],
        },
        {"calculate": dead, "as": "state"},
    ]
    points = {
        "data": _LAYERS,
        "transform": rows,
        "mark": {"type": "point", "filled": True, "opacity": 0.7},
        "encoding": {
            "x": _quantity("gamma", "γ"),
            "y": _quantity("beta", "β"),
            "color": {
                "field": "state",
                "type": "nominal",
                "scale": {"domain": list(states), "range": [_STATES[state][0] for state in states]},
                "legend": {"title": None, "symbolSize": 60},
            },
            "shape": {
                "field": "state",
                "type": "nominal",
                "scale": {"domain": list(states), "range": [_STATES[state][1] for state in states]},
                "legend": {"title": None, "symbolSize": 60},
            },
            "size": {"condition": {"test": "datum.state === 'dead'", "value": 90}, "value": 26},
            "tooltip": [
                {"field": "address", "title": "batch norm"},
                {"field": "number", "title": "channel"},
                {"field": "gamma", "title": "γ", "format": ".4~g"},
                {"field": "beta", "title": "β", "format": ".4~g"},
                {"field": "state", "title": "after the ReLU"},
            ],
        },
    }
    return frame([_room(rows), points], 280, [choice("shown", _ALL, (_ALL, *addresses), "Batch norm ")])


def _room(rows: list[Spec]) -> Spec:
    """Two corners that nobody sees, which keep both axes of γ against β from having no length."""
    ends = [
        {"op": op, "field": name, "as": f"{op}_{name}"} for name in ("gamma", "beta") for op in ("min", "max")
    ]
    return {
        "data": _LAYERS,
        "transform": [
            *rows,
            {"aggregate": ends},
            *_apart("min_gamma", "max_gamma", ("left", "right")),
            *_apart("min_beta", "max_beta", ("bottom", "top")),
        ],
        "mark": {"type": "rect", "opacity": 0, "tooltip": None, "aria": False},
        "encoding": {
            "x": _quantity("left", "γ"),
            "x2": {"field": "right"},
            "y": _quantity("bottom", "β"),
            "y2": {"field": "top"},
        },
    }
