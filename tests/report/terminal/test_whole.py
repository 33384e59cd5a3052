import io
import re
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from convscope.networks import catalogue
from convscope.networks.weights import WeightsReport
from convscope.report.terminal.tables import label
from convscope.sight.projecting.projection import Box, Census, Projection, Scores


def shown(result):
    return str(result)


@pytest.fixture
def projection():
    return Projection(
        image=torch.zeros(9, 9, 3), rule="deconvnet", rule_reason=None, address="conv2#1", unit=5,
        position=(3, 4), receptive_field=None, box=Box(0, 1, 8, 9), seed_value=2.5,
        scores=Scores(selectivity=0.75), not_computed=("image_dependence",), findings=(),
        census=Census(("relu1#1",), (), (), (), (), (), 7, 2),
    )  # fmt: skip


def test_cost_states_its_units_and_says_what_is_not_counted(cost):
    text = shown(cost)
    assert "1 MAC = 2 FLOPs" in text
    assert "1 MiB = 1,048,576 B" in text
    assert "aten::strange" in text
    assert "extra.weight" in text
    assert "Reserved memory isn't forecast yet." in text
    assert re.search(r"Total\s+8\.93 k\s+1\.33 M\s+65\.1 M", text)
    assert "7.63 MiB for activations" in text
    assert "conv-share" in text


def test_nothing_uncounted_is_said_too(cost):
    assert "nothing is left uncounted" in shown(replace(cost, uncounted=()))


def test_checkup(checkup):
    text = shown(checkup)
    assert "stale-statistics" in text
    assert "0.27 ± 0.05" in text
    assert "0.11 ± 0.02" in text
    assert "not checked: micro-batch" in text
    assert "What to do: Change the stride." in text


def test_sight(stem, gallery, projection):
    assert "21.0 % (median over the filters)" in shown(stem)
    assert "dead" in shown(stem)
    assert "80 units over 500 images" in shown(gallery)
    assert "Unit 5 of conv2#1" in shown(projection)
    assert re.search(r"image dependence\s+–", shown(projection))
    assert re.search(r"selectivity\s+0.75", shown(projection))


def test_a_gallery_tells_each_kind_of_finding_once(gallery):
    first = gallery.findings[0]
    many = tuple(replace(first, address=f"place{number}") for number in range(11))
    other = replace(first, fault="another-fault", address="elsewhere")
    text = " ".join(shown(replace(gallery, findings=(*many, other))).split())
    assert text.count(first.remedy) == 2
    assert "The same at " + ", ".join(f"place{number}" for number in range(1, 9)) + " and 2 more" in text
    assert "at elsewhere" in text


def test_training(training):
    assert "90.0 %" in shown(training)
    assert "47.0 %" in shown(training)
    assert re.search(r"best\s+90.0 % of validation images right, after epoch 4", shown(training.run))


def test_networks():
    text = shown(catalogue())
    assert "alexnet" in text
    assert "zfnet" in text
    report = WeightsReport("a.pth", "model_ema", True, (), ("module",), 12, ("fc8.bias",), ())
    assert "12 tensors from a.pth" in shown(report)
    assert "fc8.bias" in shown(report)


def test_a_report_names_its_page_and_five_findings(report):
    text = shown(report)
    assert f"The page: {report.page}" in "".join(text.splitlines()) or report.page in text.replace("\n", "")
    assert [f"{rank}. " in text for rank in range(1, 7)] == [True] * 5 + [False]
    for ranked in report.findings:
        assert ranked.finding.fault in text
    assert "No twin for <b>this</b> one." in text


def test_names_are_neither_mark_up_nor_commands_to_the_terminal(cost):
    row = replace(cost.rows[0], address="[red]conv\x1b[2J[/red]\r#1")
    text = shown(replace(cost, rows=(row,)))
    assert "\x1b" not in text
    assert "\r" not in text
    assert "[red]conv\\x1b[2J[/red]\\r#1" in text
    assert label("größe→μ").plain == "größe→μ"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_every_result_renders_at_any_width(
    width, cost, checkup, folded, stem, gallery, training, report, projection
):
    for result in (
        cost,
        checkup,
        folded,
        folded.speed,
        stem,
        gallery,
        training,
        training.run,
        report,
        projection,
    ):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(result)
        assert max(map(len, console.export_text().splitlines())) <= width


def test_a_notebook_gets_html_without_elements_from_names(cost, hostile):
    html = cost._repr_html_()
    assert "<img" not in html
    assert "65.0 M" in html
