"""Notebooks: well-formed tables with the terminal's numbers, and no elements made of names."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from convscope.cost import Explanation, Remedy, Timings, Verification, side_by_side, sweep
from convscope.cost import cost as reading
from convscope.cost.measured.values import Between, RowTiming, Seconds
from convscope.norm import LeanLayer, Savings
from convscope.report.wording.cost_grid import grid_of


class Tables(HTMLParser):
    """Cells of every table, and whether all elements are closed in order."""

    def __init__(self, html):
        super().__init__()
        self.tables, self.open, self.styles, self.tags = [], [], [], set()
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.tags.add(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.styles.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


@pytest.fixture
def page(cost):
    return Tables(cost._repr_html_())


def test_the_table_is_a_table_with_the_rows_of_the_reading(cost, page):
    grid = grid_of(cost.select())
    header, *body = page.tables[0]
    assert header == [title.removesuffix("#") for title in grid.columns]
    assert body == [list(row) for row in (*grid.rows, *grid.footer)]


def test_it_is_semantic_aligned_and_has_no_colours(cost, page):
    assert {"thead", "tbody", "tfoot"} <= page.tags
    html = cost._repr_html_()
    assert html.count('scope="col"') >= 8
    assert 'scope="row"' in html
    assert "color:" not in html
    assert "#000" not in html
    # The table aligns to the right; words have a style of their own, numbers none.
    assert "text-align:right" in html.split("<table")[1].split(">")[0]
    grid = grid_of(cost.select())
    cells = [style.get("style", "") for tag, style in page.styles if style.get("scope") != "col"]
    first_row = cells[: len(grid.columns)]
    assert ["text-align:left" in style for style in first_row] == [
        not title.endswith("#") for title in grid.columns
    ]


def test_names_make_no_elements(cost, hostile):
    assert hostile in cost.rows[2].address
    page = Tables(cost._repr_html_())
    assert not page.tags & {"script", "img"}
    assert any(hostile in cell for row in page.tables[0] for cell in row)


def test_a_long_table_is_rolled_up_with_all_calls_folded_below(cost):
    rows = tuple(
        replace(cost.rows[0], path=f"stage{n % 9}.{n}", address=f"stage{n % 9}.{n}#1") for n in range(99)
    )
    page = Tables(replace(cost, rows=rows)._repr_html_())
    assert "details" in page.tags
    assert len(page.tables[0]) == 1 + 9 + 1 + 1  # header, stages, unused parameters, sums
    assert len(page.tables[1]) == 1 + 99 + 1


def test_times_remedies_and_verification_are_in_it_and_tables_by_themselves(cost, hostile):
    times, rest = Seconds(0.002, 0.001, 0.003), Seconds(0.0, 0.0, 0.0)
    rows = (RowTiming(hostile, "convolution", times, times, 10**6, 2 * 10**6, 7.5e8, 0.8),)
    timings = Timings(
        "net", ((2, 3),), "sgd, fp32", "a processor", 1, "float32", "2.13", 5, rows,
        (Between("self", times),), rest, 0.005, times, times, times, 0.0005,
    )  # fmt: skip
    remedy = Remedy("inplace-relu", "does it", "write it", True, "noted", 2**20, None, 2**20, None, 0.5, 0.0)
    hopeless = replace(remedy, name="amp", saved_bytes=None, impossible="no autocast")
    explanation = Explanation("net", 2, 2**21, None, "forward", "conv#1:x.1", (remedy, hopeless))
    verification = Verification(
        "net", ((2, 3),), "sgd, fp32", "cpu", "a processor", {"PyTorch": "2.13"}, 2**21, 2**20, 2**20,
        (2**20, 2**20), -0.5, 0.0, False, None, None, None, {"convolution": 2**20}, (), "forward", "forward",
    )  # fmt: skip
    more = replace(cost, timings=timings, explanation=explanation, verification=verification)
    html = more._repr_html_()
    page = Tables(html)
    assert len(page.tables) > len(Tables(cost._repr_html_()).tables)
    assert not page.tags & {"script", "img"}
    cells = {cell for table in page.tables for row in table for cell in row}
    # 3 M FLOPs in 4 ms, 80 % of the whole; half of 2 MiB saved; a forecast of 1 MiB for 2 MiB.
    assert {hostile, "2.00 ms", "80.0 %", "750 M"} <= cells
    assert {"inplace-relu", "50.0 %", "write it (noted)"} <= cells
    assert "peak of allocated memory" in cells
    assert any(cell.endswith("50.00 %") for cell in cells)
    assert "not possible: amp: no autocast" in html
    for part in (timings, explanation, verification):
        assert "thead" in Tables(part._repr_html_()).tags
    nothing = replace(explanation, remedies=(hopeless,))._repr_html_()
    assert "nothing that was tried" in nothing
    assert "<table" not in nothing


def test_selections_networks_and_sweeps_are_tables_too(cost):
    from torch import nn

    def make(width):
        return nn.Linear(4, width), (1, 4)

    for result in (
        cost.sorted_by("macs").top(2),
        side_by_side({name: reading(nn.Linear(4, 4), (1, 4)) for name in ("a", "b")}),
        sweep(make, None, "width", (1, 2)),
    ):
        assert "thead" in Tables(result._repr_html_()).tags


def test_what_a_lean_pass_saved_is_a_table_with_its_sum(hostile):
    layers = (LeanLayer(hostile, 0, 2**10), LeanLayer("", 2**20, 0))
    html = Savings(layers, 2**20, 2**10)._repr_html_()
    page = Tables(html)
    assert not page.tags & {"script", "img"}
    assert "1.00 KiB in place of 1.00 MiB (0.00×)" in html
    assert page.tables[0][1:] == [
        [hostile, "0 B", "1.00 KiB", "new"],
        ["the network's own code", "1.00 MiB", "0 B", "0.00×"],
        ["Total", "1.00 MiB", "1.00 KiB", "0.00×"],
    ]
    assert "made again" not in html
    assert "made again" in Savings(layers, 2**10, 2**10)._repr_html_()


def test_a_lean_networks_cost_has_the_forecast_without_it(cost):
    peak = cost.forecast.allocated_peak_bytes
    plain = replace(cost.forecast, allocated_peak_bytes=4 * peak)
    html = replace(cost, forecast_without_lean=plain)._repr_html_()
    assert "lean takes 0.25× that" in html
    assert "lean" not in cost._repr_html_()
