"""The check-up's pictures, as Vega-Lite specifications that take their data from the page's JSON.

Running statistics against those of the data, channel by channel with error bars; gamma against beta with the
dead channels marked; each layer's share of the gap; and percentiles of activations over a watched training.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from convscope.report.chart_frame import ACCENT, QUIET, WRONG, Spec, choice, field, frame

_ALL = "all batch norms"
_ERRORS = 2  # standard errors that a bar reaches to either side
_FLATTENED = ("number", "mean", "running_mean", "mean_error", "variance", "running_variance",
              "variance_error")  # fmt: skip
_MEANS, _DEVIATIONS = "means", "standard deviations"
_LOOSE = {"zero": False, "nice": True, "padding": 10}
_LAYERS = field("checkup.layers")


def checkup_charts(checkup: Mapping[str, Any]) -> dict[str, Spec]:
    """Return the specifications of the charts that a check-up's data allows, by name.

    Args:
        checkup: a :class:`~convscope.checkup.Checkup` as plain values; it lies at ``checkup`` in the page.
    """
    layers = [layer for layer in checkup["layers"] if layer["single"]]
    measured = [layer for layer in layers if layer["single"]["mean"] and layer["single"]["running_mean"]]
    affine = [layer for layer in layers if layer["single"]["gamma"] and layer["single"]["beta"]]
    specs = {}
    if measured:
        addresses = [each["address"] for each in measured]
        specs["checkup-statistics"] = statistics_chart(addresses, _first(checkup, measured))
    if affine:
        unknown = any(each["single"]["dead"] is None for each in affine)
        specs["checkup-gains"] = gains_chart([each["address"] for each in affine], unknown)
    if checkup["attribution"]:
        specs["checkup-gap"] = attribution_chart(len(checkup["attribution"]))
    if checkup["percentiles"]:
        paths = list(dict.fromkeys(each["path"] for each in checkup["percentiles"]))
        specs["checkup-percentiles"] = percentiles_chart(paths)
    return specs


def statistics_chart(addresses: Sequence[str], first: str) -> Spec:
    """Return the chart of measured against running statistics, a point a channel, for a chosen batch norm.

    A point is off the diagonal by what the layer has wrong; bars are two standard errors.

    Args:
        addresses: batch norms to choose from.
        first: the one that is shown at first.
    """
    channels = _channels()
    x = _quantity("running", "running, as used at test time")
    y = _quantity("measured", "measured on the data")
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
    """Where running and measured statistics are the same."""
    ends = [
        {"op": "min", "field": "running", "as": "least"},
        {"op": "max", "field": "running", "as": "most"},
    ]
    return {
        "data": _LAYERS,
        "transform": [*rows, {"aggregate": ends}],
        "mark": {"type": "rule", "color": QUIET, "strokeDash": [4, 3]},
        "encoding": {
            "x": {**x, "field": "least"},
            "x2": {"field": "most"},
            "y": {**y, "field": "least"},
            "y2": {"field": "most"},
        },
    }


def _quantity(name: str, title: str) -> Spec:
    return {"field": name, "type": "quantitative", "title": title, "scale": _LOOSE}


def gains_chart(addresses: Sequence[str], unknown: bool = False) -> Spec:
    """Return the chart of γ against β, a point a channel, for all batch norms or a chosen one.

    Args:
        addresses: batch norms to choose from.
        unknown: whether it isn't known of every batch norm which channels are dead.
    """
    states = ("alive", "dead", "not known")[: 3 if unknown else 2]
    dead = "datum.dead === true ? 'dead' : datum.dead === false ? 'alive' : 'not known'"
    points = {
        "data": _LAYERS,
        "transform": [
            {"filter": f"(shown === '{_ALL}' || datum.address === shown) && isValid(datum.single.gamma)"},
            {"calculate": "isValid(datum.single.dead) ? datum.single.dead : []", "as": "known"},
            {"flatten": ["single.number", "single.gamma", "single.beta", "known"],
             "as": ["number", "gamma", "beta", "dead"]},
            {"calculate": dead, "as": "state"},
        ],
        "mark": {"type": "point", "filled": True, "opacity": 0.7},
        "encoding": {
            "x": _quantity("gamma", "γ"),
            "y": _quantity("beta", "β"),
            "color": {
                "field": "state",
                "type": "nominal",
                "scale": {"domain": list(states), "range": [ACCENT, WRONG, QUIET][: len(states)]},
                "legend": {"title": None, "symbolSize": 60},
            },
            "shape": {
                "field": "state",
                "type": "nominal",
                "scale": {"domain": list(states), "range": ["circle", "cross", "circle"][: len(states)]},
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
    }  # fmt: skip
    return frame([points], 280, [choice("shown", _ALL, (_ALL, *addresses), "Batch norm ")])


def attribution_chart(num_layers: int) -> Spec:
    """Return the chart of each layer's share of the gap, bars to two standard errors.

    Args:
        num_layers: how many there are; the first 20 are shown.
    """
    shown = min(num_layers, 20)
    data = field("checkup.attribution")
    rows: list[Spec] = [
        {"window": [{"op": "row_number", "as": "rank"}]},
        {"filter": f"datum.rank <= {shown}"},
        {"calculate": f"datum.difference - {_ERRORS} * datum.error", "as": "low"},
        {"calculate": f"datum.difference + {_ERRORS} * datum.error", "as": "high"},
        {
            "calculate": "datum.difference > 4 * datum.error ? datum.misled ? 'misled' "
            ": 'wrong itself' : 'chance'",
            "as": "why",
        },
    ]
    y = {"field": "address", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 180}}
    x = {"field": "difference", "type": "quantitative", "title": "of the gap, in the loss’s unit"}
    color = {
        "field": "why",
        "type": "nominal",
        "scale": {
            "domain": ["wrong itself", "misled", "chance"],
            "range": [WRONG, "#d9a08f", "#c4c4c0"],
        },
        "legend": {"title": None, "symbolType": "square", "symbolSize": 60},
    }
    bars = {
        "data": data,
        "transform": rows,
        "mark": {"type": "bar", "height": {"band": 0.7}},
        "encoding": {
            "x": x,
            "y": y,
            "color": color,
            "tooltip": [
                {"field": "address", "title": "on batch statistics"},
                {"field": "difference", "title": "takes of the gap", "format": ".4~g"},
                {"field": "error", "title": "standard error", "format": ".2~g"},
                {"field": "why", "title": "which"},
            ],
        },
    }
    errors = {
        "data": data,
        "transform": rows,
        "mark": {"type": "rule", "color": QUIET},
        "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}},
    }
    return frame([bars, errors], max(60, 22 * shown), [])


def percentiles_chart(
    paths: Sequence[str], base: str = "checkup", sides: Sequence[str] = ("output", "input")
) -> Spec:
    """Return the chart of the 15th, 50th and 85th percentile of a layer's channel over training.

    Args:
        paths: layers to choose from.
        base: path of the check-up, or of the run, in the page's data.
        sides: of a layer, to choose from.

    Source:
        Ioffe and Szegedy, "Batch Normalization", arXiv 1502.03167, figure 1(b, c).
    """
    data = field(f"{base}.percentiles")
    rows: list[Spec] = [
        {"filter": "datum.path === watched && datum.of === side"},
        {"flatten": ["steps", "low", "median", "high"], "as": ["step", "p15", "p50", "p85"]},
    ]
    x = {"field": "step", "type": "quantitative", "title": "optimizer steps", "axis": {"grid": False}}
    y = {"type": "quantitative", "title": "value of the channel", "scale": _LOOSE}
    tooltip = [
        {"field": "step", "title": "steps"},
        {"field": "channel", "title": "channel"},
        *({"field": name, "title": f"{name[1:]} %", "format": ".3~g"} for name in ("p15", "p50", "p85")),
    ]
    band = {
        "data": data,
        "transform": rows,
        "mark": {"type": "area", "opacity": 0.22, "color": ACCENT},
        "encoding": {"x": x, "y": {**y, "field": "p15"}, "y2": {"field": "p85"}},
    }
    lines = {
        "data": data,
        "transform": [*rows, {"fold": ["p15", "p50", "p85"], "as": ["percentile", "value"]}],
        "mark": {"type": "line", "strokeWidth": 1.6},
        "encoding": {
            "x": x,
            "y": {**y, "field": "value"},
            "color": {
                "field": "percentile",
                "type": "nominal",
                "scale": {"domain": ["p85", "p50", "p15"], "range": ["#7fb9c2", ACCENT, "#7fb9c2"]},
                "legend": {"title": None, "labelExpr": "slice(datum.label, 1) + ' %'"},
            },
            "tooltip": tooltip,
        },
    }
    return frame(
        [band, lines],
        260,
        [choice("watched", paths[0], paths, "Layer "), choice("side", sides[0], sides, "Side ")],
    )  # fmt: skip


def _first(checkup: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]) -> str:
    """The batch norm to show at first: one that is to blame, else the one that is furthest off."""
    addresses = [layer["address"] for layer in measured]
    blamed = (f["address"] for f in checkup["findings"] if f["fault"] == "stale-statistics")
    furthest = max(
        measured, key=lambda layer: max(layer["mean_residual"] or 0, layer["variance_residual"] or 0)
    )
    return next((address for address in blamed if address in addresses), str(furthest["address"]))
