"""The check-up's pictures, as Vega-Lite specifications that take their data from the page's JSON.

Running statistics against those of the data, and gamma against beta, channel by channel
(:mod:`convscope.report.charts.channels`); each layer's share of the gap; and percentiles of activations over
a watched training.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from convscope.report.charts.channels import LOOSE, gains_chart, states_of, statistics_chart
from convscope.report.charts.frame import ACCENT, WRONG, Spec, choice, field, frame
from convscope.report.wording.losses import loss_in

_LINES = ("#f4f1ec", 3.5), ("#22262a", 1.4)
_ERRORS = 2  # standard errors that a line reaches to either side


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
        specs["checkup-gains"] = gains_chart([each["address"] for each in affine], states_of(affine))
    if checkup["attribution"]:
        specs["checkup-gap"] = attribution_chart(len(checkup["attribution"]), checkup["loss_unit"])
    if checkup["percentiles"]:
        paths = list(dict.fromkeys(each["path"] for each in checkup["percentiles"]))
        specs["checkup-percentiles"] = percentiles_chart(paths)
    return specs


def attribution_chart(num_layers: int, unit: str = "loss") -> Spec:
    """Return the chart of each layer's share of the gap, bars to two standard errors.

    Args:
        num_layers: how many there are; the first 20 are shown.
        unit: of the loss: ``"nats"``, or ``"loss"`` for its own.
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
    x = {"field": "difference", "type": "quantitative", "title": f"of the gap, {loss_in(unit)}"}
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
    # Light below dark, so that the line shows on bars and on pages of any colour.
    halo, line = ({"type": "rule", "color": color, "strokeWidth": width} for color, width in _LINES)
    encoding = {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}}
    errors = [{"data": data, "transform": rows, "mark": mark, "encoding": encoding} for mark in (halo, line)]
    return frame([bars, *errors], max(60, 22 * shown), [])


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
    y = {"type": "quantitative", "title": "value of the channel", "scale": LOOSE}
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
    lines: Spec = {
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
                "legend": {
                    "title": None,
                    "symbolType": "stroke",
                    "labelExpr": "slice(datum.label, 1) + ' %'",
                },
            },
            "tooltip": tooltip,
        },
    }
    # Of a single step, neither a line nor a band can be seen.
    single = {"condition": {"test": "datum.steps.length === 1", "value": 1}, "value": 0}
    dots = {
        **lines,
        "mark": {"type": "point", "filled": True, "size": 46},
        "encoding": {**lines["encoding"], "opacity": single},
    }
    return frame(
        [band, lines, dots],
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
