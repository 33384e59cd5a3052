"""The stem's charts: what they draw of the page's data, read from the pictures that Vega makes."""

import json
import re
from dataclasses import replace

import pytest

from convscope.report.charts.report import charts
from convscope.report.charts.stem import stem_charts
from convscope.report.pages.report import page_data, page_html
from report.charts.drawn import drawn, filled


def marks_of(name, stem):
    """The labels of a chart's marks, by kind."""
    data = {"stem": stem.to_dict()}
    return drawn(stem_charts(data["stem"])[name], data)


def test_operators_with_a_share_are_marks_of(stem):
    marks = marks_of("stem-aliasing", stem)
    points = [label for kind, label in marks if kind == "point"]
    assert len(points) == 3 + 2  # the pool has no activated share, the last convolution none at all
    assert any("conv1" in p and "21.0%" in p and "as the network has it" in p for p in points)
    assert any("conv1" in p and "26.0%" in p and "behind the activation" in p for p in points)
    assert any("conv1" in p and "11.0%" in p and "with a blur before it" in p for p in points)
    assert any("convolution 7×7, stride 2×2" in p for p in points)
    assert sum("rule" in kind for kind, _ in marks) == 2
    assert not any("conv9" in label for _, label in marks)


def test_operators_in_no_module_of_their_own_can_be_told_apart(stem):
    addresses = [f"self#1:max_pool2d_with_indices.{number}" for number in (1, 2)]
    pools = tuple(replace(stem.operators[1], name=each, address=each) for each in addresses)
    data = {"stem": replace(stem, operators=(stem.operators[0], *pools)).to_dict()}
    spec = {**filled(stem_charts(data["stem"])["stem-aliasing"], data), "width": 400}
    svg = pytest.importorskip("vl_convert").vegalite_to_svg(json.dumps(spec))
    words = re.findall(r">([^<]+)</text>", svg)
    assert [word for word in words if "pool" in word or "conv" in word] == [
        "conv1",
        "max_pool2d.1",
        "max_pool2d.2",
    ]


def test_octaves_are_drawn_beside_even_coverage_and_random_weights(stem):
    marks = marks_of("stem-coverage", stem)
    bars = [label for kind, label in marks if kind == "bar"]
    assert len(bars) == 5
    assert any("0.125 – 0.25" in bar and "30.0%" in bar for bar in bars)
    # The last one goes on to the corners of the square of frequencies, beyond a half.
    assert any("over 0.25" in bar and "35.0%" in bar for bar in bars)
    assert not any("0.707" in bar for bar in bars)
    assert sum(kind == "tick" for kind, _ in marks) == 10


def test_layers_that_were_compared_are_marks_of(stem):
    marks = marks_of("stem-shifts", stem)
    points = [label for kind, label in marks if "point" in kind]
    assert len(points) == 2 * 3
    assert any("layer: conv1" in point and "0.5" in point for point in points)
    assert any("sees the border" in point for point in points)
    assert not any("conv2" in point for point in points)


def test_the_page_has_the_charts_that_its_data_allows(report, stem):
    assert {"stem-aliasing", "stem-coverage", "stem-shifts"} <= set(charts(page_data(report)))
    assert "0.21" not in json.dumps(stem_charts(stem.to_dict()))
    bare = replace(stem, operators=(), shifts=replace(stem.shifts, layers=()), smaller=())
    assert set(stem_charts(bare.to_dict())) == {"stem-coverage"}
    html = page_html(replace(report, stem=bare))
    assert "chart-stem-coverage" in html
    assert "chart-stem-aliasing" not in html
