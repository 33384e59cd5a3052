"""What the pages give away to be saved: charts as SVG, their data and the tables as CSV."""

import csv
import io
from dataclasses import replace

import pytest
from torch import nn

from browser import launched, until, watched
from convscope.cost import sweep
from convscope.report.pages.report import write_page
from convscope.report.pages.sweep import write_plot
from report.pages.saving import check_columns

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium():
    with launched() as browser:
        yield browser


@pytest.fixture
def page(chromium, report, tmp_path):
    path = write_page(replace(report, gallery=None), tmp_path / "index.html")
    with watched(chromium) as opened:
        opened.goto(path.as_uri())
        yield opened


def saved(page, place, kind, tmp_path):
    """The name and the text of the file that the button after a place saves."""
    button = page.locator(f"{place} + .save button", has_text=kind)
    button.scroll_into_view_if_needed()
    with page.expect_download() as download:
        button.click()
    download.value.save_as(tmp_path / "saved")
    return download.value.suggested_filename, (tmp_path / "saved").read_bytes()


def table(content):
    return list(csv.DictReader(io.StringIO(content.decode())))


def drawn(page, name):
    page.locator(f"#chart-{name}").scroll_into_view_if_needed()
    until(page, f"document.getElementById('chart-{name}').dataset.drawn === 'yes'")


def test_a_chart_is_saved_as_svg(page, tmp_path):
    drawn(page, "accuracy")
    name, content = saved(page, "#chart-accuracy", "SVG", tmp_path)
    assert name == "accuracy.svg"
    assert content.startswith(b"<svg")
    assert b"with batch norm" in content


def test_a_chart_s_data_is_saved_with_where_each_row_is_from(page, report, tmp_path):
    drawn(page, "loss")
    name, content = saved(page, "#chart-loss", "CSV", tmp_path)
    assert name == "loss.csv"
    rows = table(content)
    runs = {"training.run.epochs": report.training.run, "training.twin.epochs": report.training.twin}
    assert [row["source"] for row in rows] == [source for source, run in runs.items() for _ in run.epochs]
    losses = [record.train_loss for run in runs.values() for record in run.epochs]
    assert [float(row["train_loss (nats)"]) for row in rows] == losses


def test_only_rows_of_the_picture_are_saved(page, tmp_path):
    drawn(page, "accuracy")
    rows = table(saved(page, "#chart-accuracy", "CSV", tmp_path)[1])
    assert {row["source"] for row in rows} == {"training.run.epochs", "training.twin.epochs"}


def test_an_object_in_a_row_has_columns_of_its_own(page, report, tmp_path):
    drawn(page, "stem-aliasing")
    rows = table(saved(page, "#chart-stem-aliasing", "CSV", tmp_path)[1])
    shares = [operator.share for operator in report.stem.operators if operator.share]
    median = "share, median (share)"
    assert [float(row[median]) for row in rows if row[median]] == [s.median for s in shares]
    assert not any("{" in value for row in rows for value in row.values())
    norms = saved(page, "[data-name=batch-norms]", "CSV", tmp_path)[1]
    assert b"{" not in norms
    assert len(table(norms)) == len(report.checkup.layers)


def test_values_that_a_chart_takes_apart_have_rows_of_their_own(page, report, tmp_path):
    drawn(page, "checkup-gains")
    _, content = saved(page, "#chart-checkup-gains", "CSV", tmp_path)
    gains = [gain for layer in report.checkup.layers if layer.single for gain in layer.single.gamma or ()]
    assert len(gains) > len(report.checkup.layers)
    assert [float(row["gamma (1)"]) for row in table(content) if row["gamma (1)"]] == gains


def test_the_cost_table_is_saved_with_all_digits_and_no_formula(page, report, tmp_path):
    name, content = saved(page, "[data-cost=cost]", "CSV", tmp_path)
    assert name == "cost.csv"
    rows = table(content)
    assert [int(row["macs (MACs)"]) for row in rows] == [row.macs for row in report.cost.rows]
    assert [row["address"] for row in rows] == [row.address for row in report.cost.rows]
    assert rows[0]["output_shape (elements)"] == "8x24x48x48"


def test_names_that_look_like_formulas_or_move_cursors_are_harmless(chromium, report, tmp_path):
    first = replace(report.cost.rows[0], address='=cmd|"/c calc"!A1', op=" @sum\x1b[2J,\n")
    told = replace(report, gallery=None, cost=replace(report.cost, rows=(first, *report.cost.rows[1:])))
    with watched(chromium) as page:
        page.goto(write_page(told, tmp_path / "index.html").as_uri())
        row = table(saved(page, "[data-cost=cost]", "CSV", tmp_path)[1])[0]
    assert row["address"] == "'" + first.address
    assert row["op"] == "' @sum\\x1b[2J,\\x0a"


def test_the_first_layer_s_filters_are_saved_as_a_picture_and_as_numbers(page, report, tmp_path):
    name, content = saved(page, "figure.filters", "PNG", tmp_path)
    assert name == "filters.png"
    assert content.startswith(b"\x89PNG")
    assert len(table(saved(page, "figure.filters", "CSV", tmp_path)[1])) == len(report.stem.filters)


def test_a_sweep_is_saved_from_its_plot(chromium, tmp_path):
    found = sweep(nn.Linear(4, 2), (1, 4), "batch", (1, 2, 4))
    with watched(chromium) as page:
        page.goto(write_plot(found, tmp_path / "plot.html").as_uri())
        until(page, "document.getElementById('plot').dataset.drawn === 'yes'")
        assert saved(page, "#plot", "SVG", tmp_path)[1].startswith(b"<svg")
        name, content = saved(page, "#plot", "CSV", tmp_path)
        assert name == "sweep.csv"
        rows = table(content)
        assert {row["varied"] for row in rows} == {"batch (inputs)"}
        flops = [row for row in rows if row["unit"] == "GFLOPs" and row["quantity"] == "forward"]
        values = [float(row["value (in the unit of its row)"]) for row in flops]
        assert values == [2 * 8 * batch / 1e9 for batch in (1, 2, 4)]  # Linear(4, 2): 8 MACs a sample


def test_channels_and_their_layer_don_t_share_columns(page, report, tmp_path):
    drawn(page, "checkup-statistics")
    rows = table(saved(page, "#chart-checkup-statistics", "CSV", tmp_path)[1])
    (single, *_) = [layer.single for layer in report.checkup.layers if layer.single.mean]
    of = [row for row in rows if row["address"] == "bn1#1"]
    assert [float(row["measured_mean (input’s unit)"]) for row in of] == list(single.mean)
    errors = [float(row["mean_difference_standard_error (input’s unit)"]) for row in of]
    assert errors == list(single.mean_error)
    norms = table(saved(page, "[data-name=batch-norms]", "CSV", tmp_path)[1])
    assert float(norms[0]["worst_mean_standard_error (σ)"]) == report.checkup.layers[0].mean_error
    assert float(norms[0]["median_gamma (1)"]) == report.checkup.layers[0].gamma_range[1]


def test_every_column_of_numbers_has_a_unit_and_a_name_of_its_own(page):
    assert len(check_columns(page)) >= 14
