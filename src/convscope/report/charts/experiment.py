"""The pictures of a comparison of trainings, as Vega-Lite specifications that take their data from the page.

Curves with bands by arm, final errors with intervals and every seed as a dot, steps to the target with those
that never reached it, and percentiles of activations over training.
"""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from statistics import median
from typing import Any

from convscope.report.charts.checkup import percentiles_chart
from convscope.report.charts.frame import QUIET, Spec, choice, field, frame

ARM_COLOURS = ("#2b8a99", "#c9762b", "#7d68b8", "#559a50", "#c25a72", "#8f7f35", "#4f80c2", "#b264a4",
               "#7a8a8c", "#a5653f")  # fmt: skip
"""Colours of arms, in the order of the table, that suit light and dark pages."""
_MANY = len(ARM_COLOURS)
"""Arms beyond so many are drawn in the same colours again, dashed."""
_LONG = 24  # letters of a name that there is room for
_INTERVAL, _EXTREMES = "95 % interval", "lowest to highest"
_ROW, _TALL = 34, 46


def experiment_charts(found: Mapping[str, Any]) -> dict[str, Spec]:
    """Return the specifications of the charts that a comparison's data allows, by name.

    Args:
        found: a :class:`~convscope.train.comparing.Comparison` as plain values; it lies at ``comparison``.
    """
    arms = [arm["name"] for arm in found["arms"]]
    quantities = {curve["quantity"] for curve in found["curves"]}
    curved = {curve["quantity"] for curve in found["curves"] if len(curve["points"]) > 1}
    specs = {}
    if "validation_error" in curved:  # of one epoch the final errors are all there is
        specs["validation-error"] = curves_chart(
            "validation_error", arms, {"format": ".3~%"}, found["target"]
        )
    if "training_loss" in quantities and "training_loss" not in curved:
        specs["training-loss"] = only_loss_chart(arms)
    elif "training_loss" in quantities:
        specs["training-loss"] = curves_chart("training_loss", arms, _losses(found["curves"]), None)
    if any(arm["final_error"] for arm in found["arms"]):
        specs["final-errors"] = errors_chart(arms)
        if found["target"] is not None:
            specs["steps-to-target"] = steps_chart(arms)
    for place, arm in enumerate(found["arms"]):
        if paths := [row["path"] for row in arm["percentiles"]]:
            base = f"comparison.arms.{place}"
            specs[f"percentiles-{place}"] = _of_outputs(percentiles_chart(paths, base, sides=("output",)))
    return specs


def _of_outputs(chart: Spec) -> Spec:
    """A chart of percentiles without a choice of the only side, and with each colour once in its legend."""
    params = [each for each in chart["params"] if each["name"] != "side"]
    band, *marks = chart["layer"]
    lines = marks[0]
    colour = lines["encoding"]["color"]
    ends = "datum.label === 'p50' ? '50 %' : '15 % and 85 %'"
    legend = {**colour["legend"], "values": ["p85", "p50"], "labelExpr": ends}
    encoding = {**lines["encoding"], "color": {**colour, "legend": legend}}
    told = [{**mark, "encoding": {**mark["encoding"], **encoding}} for mark in marks]
    side = {"name": "side", "value": "output"}
    return {**chart, "params": [*params, side], "layer": [band, *told]}


def _losses(curves: Sequence[Mapping[str, Any]]) -> Spec:
    """The axis of losses, cut off at twice what training begins with where some run explodes."""
    points = [curve["points"] for curve in curves if curve["quantity"] == "training_loss"]
    most = 2 * median(each[0]["mean"] for each in points)
    explodes = any(point["mean"] > most for each in points for point in each)
    return {"format": "~g", **({"most": most} if explodes else {})}


def curves_chart(quantity: str, arms: Sequence[str], axis: Spec, target: float | None) -> Spec:
    """Return the chart of a quantity over training: the mean over seeds as a line, in a band.

    Args:
        quantity: of the curves.
        arms: names, in the order of their colours.
        axis: ``format`` of numbers, and ``most``, at which it is cut off, if it is.
        target: error that a dashed line marks, or None.
    """
    data = field("comparison.curves")
    points: list[Spec] = [
        {"filter": f"datum.quantity === '{quantity}'"},
        {"flatten": ["points"], "as": ["p"]},
        {"calculate": "over === 'steps' ? datum.p.step : datum.p.epoch", "as": "x"},
        {"calculate": "datum.p.mean", "as": "mean"},
        {"calculate": f"band === '{_INTERVAL}' ? max(0, datum.p.low) : datum.p.least", "as": "low"},
        {"calculate": f"band === '{_INTERVAL}' ? datum.p.high : datum.p.most", "as": "high"},
    ]
    if quantity.endswith("error"):  # a share, which an interval of few seeds may leave
        points.append({"calculate": "min(1, datum.high)", "as": "high"})
    several = {"filter": "datum.p.num_seeds > 1"}
    # No title of its own could follow the choice below the chart, which says what the axis is.
    # The format is that of a single epoch, too, whose tick Vega would write as 6.000000.
    x = {"field": "x", "type": "quantitative", "title": None, "axis": {"grid": False, "format": ",.3~f"}}
    scale = {"scale": {"domain": [0, axis["most"]]}} if "most" in axis else {}
    y: Spec = {"type": "quantitative", "title": None, "axis": {"format": axis["format"]}, **scale}
    colour = _colour(arms)
    tooltip = [
        {"field": "arm", "title": "arm"},
        {"field": "p.step", "title": "steps"},
        {"field": "p.epoch", "title": "epochs", "format": ".3~g"},
        {"field": "mean", "title": "mean", "format": ".3~g"},
        {"field": "low", "title": "from", "format": ".3~g"},
        {"field": "high", "title": "to", "format": ".3~g"},
        {"field": "p.num_seeds", "title": "seeds"},
    ]
    band = {
        "data": data,
        "transform": [*points, several],
        "mark": {"type": "area", "opacity": 0.16 if len(arms) <= 6 else 0.05, "clip": True},
        "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": colour},
    }
    line = {
        "data": data,
        "transform": points,
        "mark": {"type": "line", "strokeWidth": 1.8, "point": {"size": 14, "filled": True}, "clip": True},
        "encoding": {"x": x, "y": {**y, "field": "mean"}, "color": colour, "tooltip": tooltip,
                     **_dashes(arms)},
    }  # fmt: skip
    marks = [band, line] if target is None else [_target_line(y), band, line]
    choices = [
        choice("over", "steps", ("steps", "epochs"), "Over "),
        choice("band", _INTERVAL, (_INTERVAL, _EXTREMES), "Band "),
    ]
    return frame(marks, 280, choices, columns=2, labelLimit=180, columnPadding=24)


def _target_line(y: Spec) -> Spec:
    rule = {"type": "rule", "strokeDash": [4, 4], "color": QUIET}
    return {
        "data": field("comparison.target"),
        "mark": rule,
        "encoding": {"y": {**y, "field": "data"}},
    }


def only_loss_chart(arms: Sequence[str]) -> Spec:
    """Return the chart of a loss that was taken once: each arm's mean over seeds, with its number."""
    data, y, colour = field("comparison.curves"), _rows(arms, "arm"), _colour(arms)
    points: list[Spec] = [
        {"filter": "datum.quantity === 'training_loss'"},
        {"flatten": ["points"], "as": ["p"]},
        {"calculate": "datum.p.mean", "as": "mean"},
        {"calculate": "format(datum.p.mean, '.4~g')", "as": "label"},
    ]
    x = {"field": "mean", "type": "quantitative", "title": "nats", "scale": {"zero": False, "padding": 40}}
    shared = {"data": data, "transform": points}
    encoding = {"x": x, "y": y, "color": {**colour, "legend": None}}
    dot = {"type": "point", "filled": True, "size": 60, "opacity": 1}
    name = {"type": "text", "align": "left", "dx": 8, "fontSize": 12}
    return frame(
        [
            {**shared, "mark": dot, "encoding": encoding},
            {**shared, "mark": name, "encoding": {**encoding, "text": {"field": "label"}}},
        ],
        _TALL + _ROW * len(arms),
    )


def errors_chart(arms: Sequence[str]) -> Spec:
    """Return the chart of final errors: every seed a dot, the mean a stroke, its interval a line."""
    data, y, colour = field("comparison.arms"), _rows(arms), _colour(arms, legend=False)
    x = {"type": "quantitative", "title": "validation images wrong after the last epoch",
         "axis": {"format": ".3~%"}, "scale": {"zero": False, "nice": True}}  # fmt: skip
    seeds: list[Spec] = [
        {"flatten": ["runs"], "as": ["run"]},
        {"filter": "isValid(datum.run.final_error)"},
        {"calculate": "datum.run.final_error", "as": "value"},
    ]
    means: list[Spec] = [
        {"filter": "isValid(datum.final_error)"},
        {"calculate": "datum.final_error.mean", "as": "value"},
        {"calculate": "max(0, datum.final_error.low)", "as": "low"},
        {"calculate": "min(1, datum.final_error.high)", "as": "high"},
    ]
    dots = {
        "data": data,
        "transform": seeds,
        "mark": {"type": "point", "filled": True, "size": 42, "opacity": 0.55, "yOffset": 7},
        "encoding": {
            "x": {**x, "field": "value"},
            "y": y,
            "color": colour,
            "tooltip": [
                {"field": "name", "title": "arm"},
                {"field": "run.seed", "title": "seed"},
                {"field": "value", "title": "wrong", "format": ".2%"},
                {"field": "run.state", "title": "state"},
            ],
        },
    }
    ends = {
        "data": data,
        "transform": [*means, {"filter": "isValid(datum.final_error.low)"}],
        "mark": {"type": "rule", "strokeWidth": 2, "yOffset": -5},
        "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": y, "color": colour},
    }
    strokes = {
        "data": data,
        "transform": means,
        "mark": {"type": "tick", "thickness": 3, "height": 15, "yOffset": -5},
        "encoding": {
            "x": {**x, "field": "value"},
            "y": y,
            "color": colour,
            "tooltip": [
                {"field": "name", "title": "arm"},
                {"field": "value", "title": "mean", "format": ".2%"},
                {"field": "low", "title": "95 % from", "format": ".2%"},
                {"field": "high", "title": "to", "format": ".2%"},
            ],
        },
    }
    return frame([ends, strokes, dots], _TALL + _ROW * len(arms))


def steps_chart(arms: Sequence[str]) -> Spec:
    """Return the chart of steps to the target: dots; an open arrow where a run ended without reaching it."""
    x = {"field": "at", "type": "quantitative", "title": "optimizer steps", "scale": {"zero": True}}
    reached = "isValid(datum.run.steps_to_target)"
    rows: list[Spec] = [
        {"flatten": ["runs"], "as": ["run"]},
        {"filter": "datum.run.state === 'finished' || datum.run.state === 'diverged'"},
        {"calculate": f"{reached} ? datum.run.steps_to_target : datum.run.steps", "as": "at"},
        {"calculate": f"{reached} ? 'reached' : 'not within the run'", "as": "what"},
    ]
    shape = {
        "field": "what",
        "type": "nominal",
        "scale": {"domain": ["reached", "not within the run"], "range": ["circle", "triangle-right"]},
        "legend": {"title": None, "symbolFillColor": "transparent", "symbolStrokeColor": QUIET,
                   "symbolSize": 70, "symbolStrokeWidth": 1.6},
    }  # fmt: skip
    filled = {"condition": {"test": "datum.what === 'reached'", "value": 0.6}, "value": 0}
    mark = {"type": "point", "filled": False, "size": 64, "strokeWidth": 1.6}
    dots = {
        "data": field("comparison.arms"),
        "transform": rows,
        "mark": mark,
        "encoding": {
            "x": x,
            "y": _rows(arms),
            "color": _colour(arms, legend=False),
            "fill": {**_colour(arms, legend=False)},
            "fillOpacity": filled,
            "shape": shape,
            "tooltip": [
                {"field": "name", "title": "arm"},
                {"field": "run.seed", "title": "seed"},
                {"field": "at", "title": "steps"},
                {"field": "what", "title": "target"},
            ],
        },
    }
    return frame([dots], _TALL + _ROW * len(arms))


def _rows(arms: Sequence[str], name: str = "name") -> Spec:
    axis = {"labelLimit": 150, **_shortened(arms)}
    return {"field": name, "type": "nominal", "sort": None, "title": None, "axis": axis}


def _shortened(arms: Sequence[str]) -> Spec:
    """Labels without what all names begin with, where there is no room for whole ones."""
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*arms, strict=False))
    shared = "".join(letters[0] for letters in same) if len(arms) > 1 else ""
    shared = shared[: max(shared.rfind(" "), shared.rfind(",")) + 1]
    if not shared or max(map(len, arms)) <= _LONG:
        return {}
    return {"labelExpr": f"'…' + slice(datum.label, {len(shared)})"}


def _dashes(arms: Sequence[str]) -> Spec:
    """Lines beyond the number of colours are dashed."""
    if len(arms) <= _MANY:
        return {}
    dashes = [[1, 0] if place // _MANY % 2 == 0 else [5, 3] for place in range(len(arms))]
    scale = {"domain": list(arms), "range": dashes}
    return {"strokeDash": {"field": "arm", "type": "nominal", "scale": scale, "legend": _legend(arms)}}


def _legend(arms: Sequence[str]) -> Spec:
    return {"title": None, "symbolType": "stroke", "symbolOpacity": 1, **_shortened(arms)}


def _colour(arms: Sequence[str], legend: bool = True) -> Spec:
    colours = [ARM_COLOURS[place % len(ARM_COLOURS)] for place in range(len(arms))]
    return {
        "field": "arm" if legend else "name",
        "type": "nominal",
        "scale": {"domain": list(arms), "range": colours},
        "legend": _legend(arms) if legend else None,
    }
