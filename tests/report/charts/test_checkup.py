"""The check-up's charts: what they draw of the page's data, read from the pictures that Vega makes."""

import json
import re
from dataclasses import replace

import pytest

from convscope.report.charts.checkup import checkup_charts
from convscope.report.charts.report import charts
from convscope.report.pages.report import page_data
from report.charts.drawn import drawn, filled

vl_convert = pytest.importorskip("vl_convert")


@pytest.fixture
def data(checkup):
    return {"checkup": checkup.to_dict()}


def test_the_page_has_the_charts_that_its_data_allows(report, checkup):
    specs = charts(page_data(report))
    names = {"checkup-statistics", "checkup-gains", "checkup-gap", "checkup-percentiles"}
    assert names <= set(specs)
    bare = replace(
        checkup, layers=tuple(replace(layer, single=None) for layer in checkup.layers), attribution=(),
        percentiles=(),
    )  # fmt: skip
    assert checkup_charts(bare.to_dict()) == {}
    static = replace(checkup.layers[0].single, mean=None, variance=None, mean_error=None, variance_error=None)
    layers = (replace(checkup.layers[0], single=static),)
    found = checkup_charts(replace(bare, layers=layers).to_dict())
    assert set(found) == {"checkup-gains"}


def test_specifications_hold_no_numbers_of_the_data(checkup, data):
    text = json.dumps(checkup_charts(data["checkup"]))
    assert "0.97" not in text
    assert "-0.2" not in text
    assert text.count("$field") >= 8


def test_statistics_of_a_layer_with_error_bars(data):
    spec = checkup_charts(data["checkup"])["checkup-statistics"]
    assert spec["params"][0]["bind"]["options"] == ["bn1#1"]
    marks = drawn(spec, data)
    points = [label for kind, label in marks if kind == "point"]
    assert len(points) == 4
    assert any("channel: 5" in p and "running: 0.9" in p and "measured: 0.3" in p for p in points)
    assert any("− 2 standard errors: 0.24" in p and "+ 2 standard errors: 0.36" in p for p in points)
    assert sum(kind == "rule mark" for kind, _ in marks) == 5  # four bars and the diagonal
    spread = [label for kind, label in drawn(spec, data, statistic="standard deviations") if kind == "point"]
    assert any("channel: 5" in p and "running: 2;" in p and "measured: 1.049" in p for p in spread)


def test_the_layer_to_blame_is_shown_first(checkup):
    other = replace(checkup.layers[0], address="bn9#1", mean_residual=7.0)
    both = replace(checkup, layers=(checkup.layers[0], other))
    assert checkup_charts(both.to_dict())["checkup-statistics"]["params"][0]["value"] == "bn1#1"
    unnamed = replace(both, findings=())
    assert checkup_charts(unnamed.to_dict())["checkup-statistics"]["params"][0]["value"] == "bn9#1"


def test_gains_with_dead_channels_marked(data):
    spec = checkup_charts(data["checkup"])["checkup-gains"]
    points = [label for kind, label in drawn(spec, data) if "γ: " in label]
    assert len(points) == 4
    (dead,) = [label for label in points if "after the ReLU: dead" in label]
    assert "channel: 5" in dead
    assert "γ: 0;" in dead
    assert drawn(spec, data, shown="nothing") == []


def _labels(spec, data):
    """The texts of the axes' ticks, and of the legend."""
    svg = vl_convert.vegalite_to_svg(json.dumps({**filled(spec, data), "width": 400}))
    texts = {}
    for role in ("axis-label", "legend-label"):
        groups = re.findall(rf'class="mark-text role-{role}"[^>]*>(.*?)</g>', svg, re.DOTALL)
        texts[role] = [re.findall(r"<text[^>]*>([^<]*)</text>", group) for group in groups]
    return texts


def test_gains_that_are_all_alike_have_axes(checkup):
    single = replace(checkup.layers[0].single, gamma=(1.0,) * 4, beta=(0.0,) * 4, dead=(False,) * 4)
    data = {"checkup": replace(checkup, layers=(replace(checkup.layers[0], single=single),)).to_dict()}
    spec = checkup_charts(data["checkup"])["checkup-gains"]
    texts = _labels(spec, data)
    assert [len(set(ticks)) >= 3 for ticks in texts["axis-label"]] == [True, True]
    assert texts["legend-label"] == [["alive"]]
    assert sum("γ: 1;" in label for _, label in drawn(spec, data)) == 4


def test_running_statistics_that_are_all_alike_have_a_line_to_lie_on(checkup):
    single = replace(
        checkup.layers[0].single, running_mean=(0.0,) * 4, mean=(-10.0, 0.0, 1.0, 5.0), mean_error=(0.0,) * 4
    )
    data = {"checkup": replace(checkup, layers=(replace(checkup.layers[0], single=single),)).to_dict()}
    spec = checkup_charts(data["checkup"])["checkup-statistics"]
    across, up = _labels(spec, data)["axis-label"]
    assert across == up  # the same scale, so that the line goes from corner to corner
    assert {"−10", "5"} <= set(up)


def test_gains_of_which_it_is_not_known_what_reads_them(checkup):
    single = replace(checkup.layers[0].single, dead=None)
    data = {"checkup": replace(checkup, layers=(replace(checkup.layers[0], single=single),)).to_dict()}
    points = [label for _, label in drawn(checkup_charts(data["checkup"])["checkup-gains"], data)]
    assert sum("after the ReLU: not known" in label for label in points) == 4


def test_shares_of_the_gap(data):
    marks = drawn(checkup_charts(data["checkup"])["checkup-gap"], data)
    bars = [label for kind, label in marks if kind == "bar"]
    assert len(bars) == 2
    assert any("takes of the gap: 0.1;" in bar and "which: wrong itself" in bar for bar in bars)
    assert any("takes of the gap: 0.06" in bar and "which: misled" in bar for bar in bars)


def test_percentiles_over_training(data):
    spec = checkup_charts(data["checkup"])["checkup-percentiles"]
    assert [param["bind"]["options"] for param in spec["params"]] == [["bn1"], ["output", "input"]]
    kinds = [kind for kind, _ in drawn(spec, data)]
    assert kinds.count("line mark") == 3
    assert kinds.count("area mark") == 1
    assert drawn(spec, data, watched="nothing") == []
