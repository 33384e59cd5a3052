"""Charts of runs of one epoch: a labelled bar for each run, where a curve would be a single dot.

Both return Vega-Lite specifications without any numbers of their own, as of
:mod:`convscope.report.charts.report`.
"""

from collections.abc import Sequence
from typing import Any

from convscope.report.charts.frame import Spec, field, frame

Arms = Sequence[tuple[str, str, str]]
"""Path of each run in the page's data, its name and its colour."""

_ROW = 40
_ROOM = 1.15  # of the longest bar, for the number behind it
_LOSSES = {"train_loss": "training", "validation_loss": "validation"}


def accuracy_bars(arms: Arms, guess: str = "subject.classes") -> Spec:
    """Return the chart of the validation accuracy after the only epoch.

    Args:
        arms: see :data:`Arms`.
        guess: path of the classes in the page's data, for what guessing gets right; empty for none.
    """
    x = {"field": "validation_accuracy", "type": "quantitative", "title": None,
         "axis": {"format": ".3~%"}, "scale": {"domain": [0, _ROOM]}}  # fmt: skip
    chance: Spec = {
        "data": field(guess),
        "transform": [
            {"aggregate": [{"op": "count", "as": "classes"}]},
            {"calculate": "1 / datum.classes", "as": "validation_accuracy"},
            {"calculate": "'guessing'", "as": "label"},
        ],
    }
    rule = {"mark": {"type": "rule", "strokeDash": [3, 3], "color": "#888"}, "encoding": {"x": x}}
    name = {"type": "text", "align": "left", "baseline": "bottom", "dx": 3, "color": "#777"}
    text = {"x": x, "y": {"value": "height"}, "text": {"field": "label"}}
    layers: list[Spec] = []
    for path, label, colour in arms:
        told: list[Spec] = [{"calculate": _quoted(label), "as": "row"}]
        layers += _bar(field(f"{path}.epochs"), told, x, colour, ".2~%", [arm[1] for arm in arms])
    height = _ROW * (len(arms) + 1)
    guessing: list[Spec] = [{**chance, **rule}, {**chance, "mark": name, "encoding": text}] if guess else []
    return frame([*layers, *guessing], height)


def loss_bars(arms: Arms) -> Spec:
    """Return the chart of the training and the validation loss of the only epoch."""
    x = {"field": "nats", "type": "quantitative", "title": "nats", "scale": {"zero": True}}
    rows = [f"{name}, {of}" for _, name, _ in arms for of in _LOSSES.values()]
    layers: list[Spec] = []
    for path, name, colour in arms:
        of = f"datum.loss === 'train_loss' ? ', {_LOSSES['train_loss']}' : ', {_LOSSES['validation_loss']}'"
        told: list[Spec] = [
            {"fold": list(_LOSSES), "as": ["loss", "nats"]},
            {"calculate": f"{_quoted(name)} + ({of})", "as": "row"},
        ]
        data = field(f"{path}.epochs")
        layers += _bar(data, told, x, colour, ".3f", rows)
        room = {"calculate": f"{_ROOM} * datum.nats", "as": "room"}
        unseen = {"type": "rule", "opacity": 0, "tooltip": None, "aria": False}
        encoding = {"x": {**x, "field": "room"}}
        layers.append({"data": data, "transform": [*told, room], "mark": unseen, "encoding": encoding})
    return frame(layers, _ROW * len(rows))


def _bar(
    data: Spec, told: list[Spec], x: Spec, colour: str, form: str, rows: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A bar and the number behind it."""
    y = {"field": "row", "type": "nominal", "title": None, "scale": {"domain": rows},
         "axis": {"labelLimit": 200}}  # fmt: skip
    shared = {"data": data, "transform": told}
    number = {"field": x["field"], "type": "quantitative", "format": form}
    bar = {"type": "bar", "color": colour, "height": {"band": 0.55}}
    behind = {"type": "text", "align": "left", "dx": 6, "fontSize": 13, "color": colour}
    return (
        {**shared, "mark": bar, "encoding": {"x": x, "y": y}},
        {**shared, "mark": behind, "encoding": {"x": x, "y": y, "text": number}},
    )


def _quoted(name: str) -> str:
    """A name as a text in one of Vega's expressions."""
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
