"""Networks side by side and sweeps, as a reader sees them."""

import csv
import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from convscope.cost import NetworkCost, Refused, SideBySide, Summary, Sweep, SweepPoint, Uncounted
from convscope.report.wording.cost_compared import left_out_beside, side_by_side_grids, sweep_grid

MIB = 2**20


def summary(batch=1, peak=100 * MIB, trained=True):
    return Summary(
        input_shapes=((batch, 3, 8, 8),), batch_size=batch, params=2_000, activations=1_000 * batch,
        macs=5_000 * batch, forward_flops=10_000 * batch, backward_flops=20_000 * batch * trained,
        step_flops=10_000 * batch * (1 + 2 * trained), elementwise_ops=700 * batch,
        saved_bytes=MIB * batch * trained, rule_of_thumb_bytes=50 * MIB, allocated_peak_bytes=peak,
        allocated_high_bytes=peak + MIB, reserved_peak_bytes=None, reserved_high_bytes=None,
        peak_phase="backward", peak_op="conv#1:convolution_backward.1", stem_share=0.25, linear_share=None,
        device="cuda", uncounted=(), assumptions=(),
    )  # fmt: skip


def networks(count):
    first = summary()
    return tuple(
        NetworkCost(f"net{number}", summary(number), summary(number).ratios(first))
        for number in range(1, count + 1)
    )


@pytest.fixture
def pair():
    return SideBySide("sgd, fp32", "cuda", networks(2), (Refused("zfent", "unknown network"),))


def test_numbers_with_ratios_to_the_first(pair):
    (grid,) = side_by_side_grids(pair)
    lines = {row[0]: row[1:] for row in grid.rows}
    assert grid.columns == ("", "net1#", "×#", "net2#", "×#")
    assert lines["MACs"] == ("5.00 k", "1.00×", "10.0 k", "2.00×")
    assert lines["Allocated peak"] == ("100 MiB", "1.00×", "100 MiB", "1.00×")
    assert lines["Input"] == ("1×3×8×8", "", "2×3×8×8", "")
    assert lines["Stem's share of outputs"] == ("25.0 %", "", "25.0 %", "")
    assert lines["FC share of parameters"] == ("–", "", "–", "")
    assert "Reserved peak" not in lines  # nothing has one


def test_many_networks_take_several_tables():
    found = SideBySide("sgd, fp32", "cuda", networks(9), ())
    grids = side_by_side_grids(found)
    assert [[title for title in grid.columns if title.startswith("net")] for grid in grids] == [
        ["net1#", "net2#", "net3#", "net4#"],
        ["net5#", "net6#", "net7#", "net8#"],
        ["net9#"],
    ]


def test_text_names_what_failed(pair):
    text = str(pair)
    assert "2 networks, sgd, fp32, on cuda" in text
    assert "zfent" in text
    assert "unknown network" in text
    assert "× is relative to net1" in text
    alone = str(replace(pair, networks=pair.networks[:1], refused=()))
    assert "1 network, " in alone
    assert "×" not in alone.replace("1×3×8×8", "")


def test_a_sweep_has_one_line_a_point_with_units():
    points = tuple(SweepPoint(batch, summary(batch, batch * 100 * MIB)) for batch in (1, 2, 16))
    found = Sweep("net", "batch", "sgd, fp32", "cuda", points, (Refused("batch 32", "too large"),))
    grid = sweep_grid(found)
    lines = [dict(zip(grid.columns, row, strict=True)) for row in grid.rows]
    assert [line["Batch, inputs#"] for line in lines] == ["1", "2", "16"]
    assert [line["Allocated peak#"] for line in lines] == ["100 MiB", "200 MiB", "1.56 GiB"]
    assert {line["Peak in"] for line in lines} == {"backward"}
    assert "batch 32" in str(found)
    assert "1 MAC = 2 FLOPs" in str(found)


def test_what_is_not_counted_is_said_with_where(pair):
    strange = replace(
        summary(2),
        uncounted=(Uncounted("aten::strange", 3, "forward", "a#1:strange.1"),),
        assumptions=("a size was assumed",),
    )
    first, second = pair.networks
    assert left_out_beside(pair) == ["nothing is left uncounted"]
    found = replace(pair, networks=(first, replace(second, summary=strange)))
    expected = ["not counted: aten::strange in forward (net2)", "assumed: a size was assumed (net2)"]
    assert left_out_beside(found) == expected
    for text in (str(found), found._repr_html_()):
        assert all(line in text for line in expected)
    summary_of_json = json.loads(found.to_json())["networks"][1]["summary"]
    assert summary_of_json["uncounted"][0]["calls"] == 3
    assert summary_of_json["device"] == "cuda"
    line = list(csv.DictReader(io.StringIO(found.to_csv())))[1]
    assert (line["uncounted"], line["assumptions"]) == ("forward:aten::strange", "a size was assumed")


def test_what_no_point_of_a_sweep_counts_is_said_once():
    strange = replace(summary(), uncounted=(Uncounted("aten::strange", 1, "forward", "a#1:strange.1"),))
    points = (SweepPoint(1, strange), SweepPoint(2, strange))
    found = Sweep("net", "batch", "sgd, fp32", "cpu", points, ())
    for text in (str(found), found._repr_html_()):
        assert text.count("not counted: aten::strange in forward") == 1
        assert "on cpu" in text
    half = replace(found, points=(points[0], SweepPoint(2, summary(2))))
    assert "not counted: aten::strange in forward (batch 1)" in str(half)


def test_inference_has_no_columns_of_backward():
    points = (SweepPoint(0.25, summary(trained=False)),)
    grid = sweep_grid(Sweep("net", "width", "inference", "cuda", points, ()))
    assert grid.columns[0] == "Width, factor#"
    assert grid.rows[0][0] == "0.25"
    assert not any("ackward" in title or "Step" in title for title in grid.columns)


@pytest.mark.parametrize("width", [60, 70, 80, 100, 160])
def test_no_word_is_cut_however_narrow(width):
    points = (SweepPoint(16, summary(16)),)
    for found in (
        SideBySide("sgd, fp32", "cuda", networks(7), ()),
        Sweep("net", "batch", "sgd, fp32", "cuda", points, ()),
    ):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(found)
        text = console.export_text()
        for word in ("Peak in", "Parameters", "Allocated peak", "Rule of thumb"):
            assert word in text, word
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width
