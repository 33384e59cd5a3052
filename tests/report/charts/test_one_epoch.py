"""Runs of one epoch: numbers that can be read, where a curve would be a dot."""

import json
import re
from dataclasses import replace

import pytest

from convscope.report.charts.checkup import percentiles_chart
from convscope.report.charts.report import charts, is_once
from convscope.report.pages.report import page_data, page_html
from convscope.report.whole.norm_effect import norm_effect
from report.charts.drawn import drawn, filled


@pytest.fixture
def once(report, make_run):
    training = norm_effect("batch", make_run("with", (0.2125,)), make_run("without", (0.128,)), 400)
    return replace(report, training=training)


def test_each_run_is_a_bar_with_its_number(once):
    data = page_data(once)
    specs = charts(data)
    assert is_once(data["training"])
    accuracy = drawn(specs["accuracy"], data)
    bars = [label for kind, label in accuracy if kind == "bar"]
    assert sorted(label.split("row: ")[1] for label in bars) == ["with batch norm", "without"]
    assert {"21.25%", "12.8%"} <= {word for _, label in accuracy for word in re.findall(r"[\d.]+%", label)}
    loss = drawn(specs["loss"], data)
    rows = [label.split("row: ")[1] for kind, label in loss if kind == "bar"]
    assert sorted(set(rows)) == sorted(
        f"{name}, {of}" for name in ("with batch norm", "without") for of in ("training", "validation")
    )
    assert any("nats: 2.3" in label and "training" in label for _, label in loss)
    assert any("nats: 2.2" in label and "validation" in label for _, label in loss)


def test_the_page_says_that_there_is_one_epoch(once, report):
    assert "Validation accuracy after the only epoch" in page_html(once)
    assert "the only epoch" not in page_html(report)


def test_two_epochs_of_either_run_are_curves(report, make_run):
    training = norm_effect("batch", make_run("with", (0.2,)), make_run("without", (0.1, 0.2)), 400)
    data = page_data(replace(report, training=training))
    assert not is_once(data["training"])
    assert {kind for kind, _ in drawn(charts(data)["accuracy"], data)} & {"bar"} == set()


def test_a_run_of_one_epoch_beside_a_curve_has_its_numbers_there(report, make_run):
    def words(*accuracies):
        training = norm_effect("batch", make_run("with", accuracies), make_run("without", (0.1, 0.2)), 400)
        data = page_data(replace(report, training=training))
        specs = [{**filled(charts(data)[name], data), "width": 400} for name in ("accuracy", "loss")]
        drawer = pytest.importorskip("vl_convert")
        svg = "".join(drawer.vegalite_to_svg(json.dumps(spec)) for spec in specs)
        return set(re.findall(r">([^<]+)</text>", svg))

    lone = {"21.25%", "2.3 training", "2.2 validation"}
    assert lone <= words(0.2125)
    assert not lone & words(0.2125, 0.5)


def test_a_single_step_that_was_looked_at_is_three_dots():
    row = {"path": "bn1", "channel": 3, "of": "output"}
    one = {**row, "steps": [0], "low": [-1.0], "median": [0.25], "high": [1.0]}
    two = {**row, "steps": [0, 5], "low": [-1.0, 0], "median": [0.25, 0], "high": [1.0, 0]}

    def dots(shown):
        spec = filled(percentiles_chart(["bn1"], sides=("output",)), {"checkup": {"percentiles": [shown]}})
        svg = pytest.importorskip("vl_convert").vegalite_to_svg(json.dumps({**spec, "width": 400}))
        points = re.findall(r'<path [^>]*aria-roledescription="point"[^>]*>', svg)
        return [point for point in points if 'opacity="0"' not in point]

    assert len(dots(one)) == 3
    assert dots(two) == []
