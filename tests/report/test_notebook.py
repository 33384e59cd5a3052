"""Notebooks: well-formed tables with the terminal's numbers, and no elements made of names."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from convscope.cost import cost as reading
from convscope.cost import side_by_side, sweep
from convscope.report.cost_grid import grid_of


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
