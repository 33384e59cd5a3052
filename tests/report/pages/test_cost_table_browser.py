"""The cost table in a real browser: sorted, searched, summed up by module, linked to; as Python has it."""

from dataclasses import replace
from urllib.parse import quote

import pytest
from torch import nn

from browser import launched, until, watched
from convscope.core.units import format_bytes, format_count
from convscope.cost.views.rollup import rolled_up
from convscope.report.pages.report import write_page
from report.graphs import with_graph

pytestmark = pytest.mark.browser

ROWS = "[...document.querySelectorAll('[data-cost=cost] tbody tr')]"
DRAWN = "document.getElementById('graph-canvas').dataset.drawn === 'yes'"
POINTED = "[...document.querySelectorAll('tr.pointed-at code')].map((each) => each.textContent)"


class Shared(nn.Module):
    """Modules in modules, one of them called twice, and operators between them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.stage = nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), nn.ReLU())
        self.head = nn.Linear(4, 7)

    def forward(self, x):
        x = self.stem(x)
        x = self.stage(x) + self.stage(x)
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def chromium():
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def shared(report):
    return replace(with_graph(report, Shared(), (2, 3, 9, 8)), gallery=None)


@pytest.fixture
def page(chromium, shared, tmp_path):
    path = write_page(shared, tmp_path / "index.html")
    with watched(chromium) as opened:
        opened.goto(path.as_uri())
        yield opened
        assert opened.seen["console"] == []
        assert opened.seen["errors"] == []


def texts(page, selector):
    rows = f"{ROWS}.map((each) => each.querySelector({selector!r})?.textContent.trim() ?? '')"
    return page.evaluate(rows)


def columns(page, number):
    return texts(page, f"td:nth-child({number}) .n")


def test_sorted_by_macs_the_other_way_and_as_executed_again(page, shared):
    rows = shared.cost.rows
    heading = page.locator("[data-cost=cost] th", has_text="MACs")
    largest_first = [row.address for row in sorted(rows, key=lambda row: -row.macs)]
    smallest_first = [row.address for row in sorted(rows, key=lambda row: row.macs)]
    for expected, state in (
        (largest_first, "descending"), (smallest_first, "ascending"), ([r.address for r in rows], None),
    ):  # fmt: skip
        heading.get_by_role("button").click()
        assert texts(page, "code") == expected
        assert heading.get_attribute("aria-sort") == state


def test_sorted_by_name_numbers_count_as_numbers(chromium, report, tmp_path):
    model = nn.Sequential(*[nn.Conv2d(1, 1, 1) for _ in range(12)])
    path = write_page(replace(with_graph(report, model, (1, 1, 2, 2)), gallery=None), tmp_path / "index.html")
    with watched(chromium) as page:
        page.goto(path.as_uri())
        heading = page.locator("[data-cost=cost] th", has_text="Layer")
        heading.get_by_role("button").click()
        found = [name for name in texts(page, "code") if name.endswith("#1")]
        assert found == [f"{number}#1" for number in range(12)]


def test_a_search_shows_what_has_all_words_and_its_sum(page, shared):
    page.locator("[data-cost=cost]").locator("xpath=preceding-sibling::div[1]//input").fill("stage CONV")
    kept = [row for row in shared.cost.rows if row.path.startswith("stage") and row.op == "convolution"]
    assert len(kept) == 2
    assert texts(page, "code") == [row.address for row in kept]
    shown = page.locator("[data-cost=cost] tfoot tr").first.inner_text()
    assert f"Shown: 2 of {len(shared.cost.rows)} rows" in shown
    assert format_count(sum(row.macs for row in kept)) in shown
    assert format_bytes(sum(row.saved_bytes for row in kept)) in shown


@pytest.mark.parametrize("depth", [1, 2])
def test_by_module_it_is_what_the_command_line_sums_up(page, shared, depth):
    rows = page.locator("[data-cost=cost]").locator("xpath=preceding-sibling::div[1]//select")
    rows.select_option(str(depth))
    expected = rolled_up(shared.cost.rows, shared.cost.modules, depth)
    assert len(expected) < len(shared.cost.rows)
    assert texts(page, "code") == [row.address for row in expected]
    for number, name, written in (
        (4, "params", format_count), (6, "macs", format_count), (7, "saved_bytes", format_bytes),
    ):  # fmt: skip
        assert columns(page, number) == [written(getattr(row, name)) for row in expected]
    rows.select_option("0")
    assert texts(page, "code") == [row.address for row in shared.cost.rows]


@pytest.mark.parametrize(
    ("asked", "found"),
    [("stage.0.0#2", "stage.0.0#2"), ("head", "head#1"), ("stage.0", "stage.0.0#1"), ("nothing", None)],
)
def test_a_link_leads_to_a_row_whatever_is_searched_for(page, asked, found):
    page.locator("[data-cost=cost]").locator("xpath=preceding-sibling::div[1]//input").fill("relu")
    page.evaluate(f"location.hash = '#cost/{quote(asked, safe='')}'")
    page.wait_for_timeout(150)
    assert page.evaluate(POINTED) == ([found] if found else [])
    if found:
        until(page, DRAWN)
        page.wait_for_timeout(100)
        box = page.locator("tr.pointed-at").bounding_box()
        assert 300 <= box["y"] <= 600


def test_a_reader_who_scrolls_is_not_called_back(page):
    page.evaluate(f"location.hash = '#cost/{quote('head#1', safe='')}'")
    page.wait_for_timeout(50)
    page.mouse.wheel(0, 2000)
    page.wait_for_timeout(100)
    place = page.evaluate("scrollY")
    page.evaluate("document.querySelector('main').prepend(document.createElement('p'))")
    page.wait_for_timeout(100)
    assert page.locator("tr.pointed-at").bounding_box()["y"] < 0
    assert abs(page.evaluate("scrollY") - place) < 100


def test_the_graph_leads_to_the_row_of_a_layer(page):
    page.evaluate(f"location.hash = '#graph={quote('head#1', safe='')}'")
    until(page, "document.querySelector('#graph-detail a[href^=\"#cost/\"]')")
    page.locator("#graph-detail a[href^='#cost/']").click()
    until(page, f"({POINTED})[0] === 'head#1'")


def test_findings_lead_to_their_node(chromium, shared, report, tmp_path):
    finding = replace(report.findings[0].finding, address="stage.0.1#1")
    told = replace(shared, findings=(replace(report.findings[0], finding=finding),))
    with watched(chromium) as page:
        page.goto(write_page(told, tmp_path / "index.html").as_uri())
        page.locator("#findings .where a").click()
        until(page, "document.querySelector('#graph-detail h3')?.textContent === 'stage.0.1#1'")
