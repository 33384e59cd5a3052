"""The page's charts, as Vega-Lite specifications without any numbers of their own.

A specification takes its data by name: ``{"$field": "cost.forecast.timeline"}`` stands for what lies there in
the page's JSON, and the page's script puts it in. So a chart can't show anything but the page's data.
"""

from collections.abc import Iterator
from typing import Any

from convscope.report.charts.checkup import checkup_charts, percentiles_chart
from convscope.report.charts.frame import ACCENT, RULE, SECOND, WRONG, Spec, field, frame
from convscope.report.charts.one_epoch import accuracy_bars, loss_bars
from convscope.report.charts.stem import stem_charts

_SYMBOLS: Spec = {"symbolType": "stroke", "symbolSize": 220}
_MIB = 2**20
_OF = {"validation_accuracy": "", "train_loss": " training", "validation_loss": " validation"}


def charts(data: dict[str, Any]) -> dict[str, Spec]:
    """Return the specifications of the charts that a page with this data has, by name."""
    specs = {f"memory-{base}": memory_chart(base) for base in ("cost", "published") if data.get(base)}
    if data.get("training"):
        arms = [("training.run", f"with {data['training']['norm']} norm", ACCENT)]
        if data["training"]["twin"]:
            arms.append(("training.twin", "without", SECOND))
        once = is_once(data["training"])
        specs["accuracy"] = accuracy_bars(arms) if once else accuracy_chart(arms)
        specs["loss"] = loss_bars(arms) if once else loss_chart(arms)
        specs |= dict(_activations(data["training"]))
    for name, charts_of in (("checkup", checkup_charts), ("stem", stem_charts)):
        if data.get(name):
            specs |= charts_of(data[name])
    return specs


def is_once(training: dict[str, Any]) -> bool:
    """Whether no run of a training has more than one epoch, so that there is no curve to draw."""
    runs = [training[arm] for arm in ("run", "twin") if training[arm]]
    return max(len(run["epochs"]) for run in runs) == 1


def _activations(training: dict[str, Any]) -> Iterator[tuple[str, Spec]]:
    """The percentiles of what layers put out, of the runs that were watched."""
    for arm in ("run", "twin"):
        rows = training[arm]["percentiles"] if training[arm] else ()
        if paths := [row["path"] for row in rows]:
            yield f"activations-{arm}", percentiles_chart(paths, f"training.{arm}", sides=("output",))


def memory_chart(base: str) -> Spec:
    """Return the chart of the bytes in use over a training step.

    Args:
        base: path of the cost reading in the page's data.
    """
    timeline, bound = field(f"{base}.forecast.timeline"), field(f"{base}.rule_of_thumb")
    return _lined(
        [*_phases(timeline), _in_use(timeline), *_bound(bound), _peak(timeline), _hover(timeline)], 280
    )


_CALL = {"field": "call", "type": "quantitative", "title": "operator of the step", "axis": {"grid": False}}
_IN_USE = {"field": "mib", "type": "quantitative", "title": "MiB in use", "axis": {"format": ",~r"}}
_TO_MIB = {"calculate": f"datum.allocated_bytes / {_MIB}", "as": "mib"}
_TOOLTIP = [
    {"field": "address", "title": "operator"},
    {"field": "phase", "title": "phase"},
    {"field": "mib", "title": "MiB in use", "format": ",.1f"},
]


def _phases(timeline: Spec) -> list[Spec]:
    """A line where each phase begins, with its name where there is room for it."""
    ends = [{"op": "min", "field": "call", "as": "first"}, {"op": "max", "field": "call", "as": "last"}]
    spans: list[Spec] = [
        {"aggregate": ends, "groupby": ["phase"]},
        {"joinaggregate": [{"op": "max", "field": "last", "as": "end"}]},
        {"filter": "datum.last - datum.first > 0.05 * datum.end"},
    ]
    x = {**_CALL, "field": "first"}
    line = {"type": "rule", "strokeDash": [1, 3], "opacity": 0.6, "color": "#888"}
    name = {"type": "text", "align": "left", "baseline": "top", "dx": 4, "dy": 2, "color": "#777"}
    named = {"x": x, "y": {"value": 0}, "text": {"field": "phase"}}
    return [
        {"data": timeline, "transform": spans[:1], "mark": line, "encoding": {"x": x}},
        {"data": timeline, "transform": spans, "mark": name, "encoding": named},
    ]


def _in_use(timeline: Spec) -> Spec:
    step = {"interpolate": "step-after", "color": ACCENT}
    mark = {"type": "area", "opacity": 0.28, "line": {**step, "strokeWidth": 1.4}, **step}
    return {"data": timeline, "transform": [_TO_MIB], "mark": mark, "encoding": {"x": _CALL, "y": _IN_USE}}


def _bound(rule_of_thumb: Spec) -> list[Spec]:
    """The dashed line of the rule of thumb, and its name."""
    mib = {"calculate": f"(datum.activation_bytes + datum.parameter_bytes) / {_MIB}", "as": "mib"}
    label = {"calculate": "'rule of thumb: ' + format(datum.mib, ',.3~r') + ' MiB'", "as": "label"}
    line = {"type": "rule", "color": RULE, "strokeDash": [6, 4], "strokeWidth": 1.5}
    name = {"type": "text", "align": "right", "baseline": "bottom", "dy": -4, "color": RULE}
    text = {"y": _IN_USE, "x": {"value": "width"}, "text": {"field": "label"}}
    return [
        {"data": rule_of_thumb, "transform": [mib], "mark": line, "encoding": {"y": _IN_USE}},
        {"data": rule_of_thumb, "transform": [mib, label], "mark": name, "encoding": text},
    ]


def _peak(timeline: Spec) -> Spec:
    """A point at the first place where the most is in use."""
    descending = [
        {"field": "allocated_bytes", "order": "descending"},
        {"field": "call", "order": "ascending"},
    ]
    first = {"window": [{"op": "row_number", "as": "row"}], "sort": descending}
    mark = {"type": "point", "filled": True, "size": 55, "opacity": 1, "color": WRONG}
    return {
        "data": timeline,
        "transform": [_TO_MIB, first, {"filter": "datum.row === 1"}],
        "mark": mark,
        "encoding": {"x": _CALL, "y": _IN_USE, "tooltip": _TOOLTIP},
    }


def _hover(timeline: Spec) -> Spec:
    """A line under the pointer, which says what runs there."""
    near = {"type": "point", "on": "pointermove", "nearest": True, "clear": "pointerout"}
    shown = {"condition": {"param": "hover", "empty": False, "value": 0.8}, "value": 0}
    return {
        "data": timeline,
        "transform": [_TO_MIB],
        "params": [{"name": "hover", "select": near}],
        "mark": {"type": "rule", "color": "#888"},
        "encoding": {"x": _CALL, "tooltip": _TOOLTIP, "opacity": shown},
    }


def accuracy_chart(arms: list[tuple[str, str, str]], guess: str = "subject.classes") -> Spec:
    """Return the chart of the validation accuracy after each epoch.

    Args:
        arms: path of each run in the page's data, its name and its colour.
        guess: path of the classes in the page's data, for what guessing gets right; empty for none.
    """
    y = {"field": "validation_accuracy", "type": "quantitative", "title": None, "axis": {"format": ".3~%"},
         "scale": {"domain": [0, 1]}}  # fmt: skip
    chance = {
        "data": field(guess),
        "transform": [
            {"aggregate": [{"op": "count", "as": "classes"}]},
            {"calculate": "1 / datum.classes", "as": "validation_accuracy"},
            {"calculate": "'guessing'", "as": "label"},
        ],
    }
    lines = [
        {
            "data": field(f"{path}.epochs"),
            "mark": {"type": "line", "point": {"size": 26, "filled": True}, "strokeWidth": 2},
            "encoding": {
                "x": _epoch(),
                "y": y,
                "color": _arm(arms, name),
                "tooltip": [
                    {"field": "epoch", "title": "epoch"},
                    {"field": "validation_accuracy", "title": name, "format": ".1%"},
                ],
            },
        }
        for path, name, _ in arms
    ]
    alone = [_alone(path, name, arms, ("validation_accuracy",), y, ".2~%") for path, name, _ in arms]
    guess_rule = {
        **chance,
        "mark": {"type": "rule", "strokeDash": [3, 3], "color": "#888"},
        "encoding": {"y": y},
    }
    guess_text = {
        **chance,
        "mark": {"type": "text", "align": "right", "baseline": "bottom", "dy": -3, "color": "#777"},
        "encoding": {"y": y, "x": {"value": "width"}, "text": {"field": "label"}},
    }
    return _lined([*([guess_rule, guess_text] if guess else []), *lines, *alone], height=220)


def loss_chart(arms: list[tuple[str, str, str]]) -> Spec:
    """Return the chart of the training and validation loss of each epoch.

    Args:
        arms: path of each run in the page's data, its name and its colour.
    """
    measured = {"domain": ["train_loss", "validation_loss"], "range": [[1, 0], [4, 3]]}
    names = "datum.label === 'train_loss' ? 'training' : 'validation'"
    dash = {
        "field": "loss",
        "type": "nominal",
        "scale": measured,
        "legend": {"title": None, "labelExpr": names},
    }
    layers = [
        {
            "data": field(f"{path}.epochs"),
            "transform": [{"fold": ["train_loss", "validation_loss"], "as": ["loss", "nats"]}],
            "mark": {"type": "line", "strokeWidth": 2, "point": {"size": 26}},
            "encoding": {
                "x": _epoch(),
                "y": {"field": "nats", "type": "quantitative", "title": None},
                "color": _arm(arms, name),
                "strokeDash": dash,
                "tooltip": [
                    {"field": "epoch", "title": "epoch"},
                    {"field": "train_loss", "title": "training loss, nats", "format": ".3f"},
                    {"field": "validation_loss", "title": "validation loss, nats", "format": ".3f"},
                ],
            },
        }
        for path, name, _ in arms
    ]
    y = {"field": "nats", "type": "quantitative", "title": None}
    losses = ("train_loss", "validation_loss")
    alone = [_alone(path, name, arms, losses, y, ".3~f") for path, name, _ in arms]
    return _lined([*layers, *alone], 220)


# Six parameters: a run, and how the chart that it is alone in writes numbers.
def _alone(
    path: str, name: str, arms: list[tuple[str, str, str]], of: tuple[str, ...], y: Spec, form: str
) -> Spec:
    """The numbers of a run of one epoch beside others' curves, where its dots alone would say little."""
    words = " : ".join(f"datum.of === '{each}' ? '{_OF[each]}'" for each in of) + " : ''"
    return {
        "data": field(f"{path}.epochs"),
        "transform": [
            {"joinaggregate": [{"op": "count", "as": "epochs"}]},
            {"fold": list(of), "as": ["of", y["field"]]},
            {
                "calculate": f"datum.epochs === 1 ? format(datum.{y['field']}, '{form}') + ({words}) : ''",
                "as": "label",
            },
        ],
        "mark": {"type": "text", "align": "left", "dx": 8, "aria": False, "tooltip": None},
        "encoding": {
            "x": _epoch(),
            "y": y,
            "text": {"field": "label"},
            "color": _arm(arms, name),
        },
    }


def _epoch() -> dict[str, Any]:
    axis = {"tickMinStep": 1, "format": "d", "grid": False}
    return {
        "field": "epoch",
        "type": "quantitative",
        "title": "epoch",
        "axis": axis,
        "scale": {"zero": False},
    }


def _arm(arms: list[tuple[str, str, str]], name: str) -> dict[str, Any]:
    scale = {"domain": [arm[1] for arm in arms], "range": [arm[2] for arm in arms]}
    return {"datum": name, "type": "nominal", "scale": scale, "legend": {"title": None}}


def _lined(layers: list[Any], height: int) -> Spec:
    return frame(layers, height, (), **_SYMBOLS)
