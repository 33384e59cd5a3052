"""The plot of a sweep: its data are the sweep's, its axes have units, its page opens offline."""

import base64
import hashlib
import json
import re
import sys

import pytest
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.cost import sweep
from convscope.report.charts.sweep import sweep_chart
from convscope.report.pages.sweep import check_format, write_plot
from convscope.tape import TrainingPlan

MIB = 2**20


@pytest.fixture(scope="module")
def found():
    return sweep(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 2)), (1, 3, 6, 6), "batch", (1, 4)
    )


def lines(panel):
    """The y values of each line of a panel."""
    values = panel["data"]["values"]
    return {name: [v["y"] for v in values if v["line"] == name] for name in {v["line"] for v in values}}


def test_the_data_are_the_sweeps(found):
    memory, work = sweep_chart(found)["vconcat"]
    peaks = [point.summary.allocated_peak_bytes / MIB for point in found.points]
    assert lines(memory)["allocated peak"] == peaks
    # Conv: 16 positions × 4 × 27; linear: 128; two FLOPs each, in GFLOPs.
    assert lines(work)["forward"] == pytest.approx([2 * b * (1728 + 128) / 1e9 for b in (1, 4)])
    assert {value["x"] for value in memory["data"]["values"]} == {1, 4}


def test_axes_have_units(found):
    for panel, unit in zip(sweep_chart(found)["vconcat"], ("(MiB)", "(GFLOPs"), strict=True):
        assert unit in panel["encoding"]["y"]["title"]
        assert panel["encoding"]["x"]["title"] == "batch (inputs)"
        assert panel["encoding"]["y"]["scale"]["zero"]


def test_inference_draws_nothing_of_backward():
    found = sweep(nn.Linear(4, 4), (1, 4), "batch", (1, 2), None)
    memory, work = map(lines, sweep_chart(found)["vconcat"])
    assert "saved for backward" not in memory
    assert set(work) == {"forward"}


def test_the_page_has_everything_inside_and_runs_nothing_else(found, tmp_path):
    html = write_plot(found, tmp_path / "plot.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)""", html.split("<script")[0])
    assert "<script src" not in html
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    for script in re.findall(r"<script>(.*?)</script>", html, re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert digest in policy
    assert "default-src &#39;none&#39;" in policy or "default-src 'none'" in policy
    chart = json.loads(re.search(r'id="chart">(.*?)</script>', html, re.DOTALL)[1])
    assert chart["vconcat"] == sweep_chart(found)["vconcat"]
    assert [path.name for path in tmp_path.iterdir()] == ["plot.html"]


def test_names_make_no_elements(tmp_path, hostile):
    found = sweep(lambda value: (nn.Linear(4, value), (1, 4)), None, hostile, (1, 2), TrainingPlan("sgd"))
    html = write_plot(found, tmp_path / "plot.html").read_text()
    assert "<img src=x" not in html


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_pictures(found, tmp_path, suffix):
    pytest.importorskip("vl_convert")
    content = write_plot(found, tmp_path / f"plot.{suffix}").read_bytes()
    assert content.startswith({"svg": b"<svg", "png": b"\x89PNG"}[suffix])
    if suffix == "svg":
        for text in (b"memory (MiB)", b"batch (inputs)", b"allocated peak"):
            assert text in content


def test_other_formats_and_a_missing_package_are_named(tmp_path, monkeypatch):
    with pytest.raises(ConvscopeError, match=r"\.html, \.svg, \.png"):
        check_format("plot.pdf")
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(ConvscopeError, match=r"convscope\[plot\]"):
        check_format("plot.svg")
    check_format("plot.html")
