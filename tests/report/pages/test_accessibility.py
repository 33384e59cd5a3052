"""Every kind of page under axe-core: no violation of WCAG 2.2 AA nor of axe's best practices.

In light and dark, on a telephone's width and on a desk's, as it opens and with everything opened that opens.
axe-core is MPL-2.0; it comes with the package axe-playwright-python and is used in these tests alone.
"""

from importlib.resources import files

import pytest

from browser import launched, until
from report.pages.kinds import KINDS, pages_of

pytestmark = pytest.mark.browser

SETTINGS = "{ rules: { 'target-size': { enabled: true } }, resultTypes: ['violations'] }"
DRAWN = """[...document.querySelectorAll('[data-chart]')].every((each) =>
    each.closest('details:not([open])') || ['yes', 'failed'].includes(each.dataset.drawn))"""
OPEN = """document.querySelectorAll('main details:not(.chart details)').forEach((each) => {
    each.open = true;
});"""


@pytest.fixture(scope="module")
def chromium():
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(report, checkup, tmp_path_factory):
    return pages_of(report, checkup, tmp_path_factory.mktemp("kinds"))


@pytest.fixture(scope="module")
def engine():
    return files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


def violations(page, engine):
    """What axe-core finds: rule, how often, and the first places with what axe says of them."""
    page.evaluate(engine)
    found = page.evaluate(f"axe.run(document, {SETTINGS})")["violations"]
    return [
        (
            each["id"],
            len(each["nodes"]),
            [
                (node["target"], node["html"][:160], node["failureSummary"][:300])
                for node in each["nodes"][:3]
            ],
        )
        for each in found
    ]


def settled(page):
    page.wait_for_timeout(50)
    until(page, DRAWN)


def opened_views(page):
    """The page with all its parts open, then with a node of the graph opened, then with a unit's dialog."""
    page.evaluate(OPEN)
    settled(page)
    yield "all open"
    if page.locator("[data-toggle]").count():
        page.locator("[data-toggle]").first.dispatch_event("click")
        yield "module open"
    if page.locator("#units").count():
        page.locator("#units").scroll_into_view_if_needed()
        until(page, "document.querySelector('.unit-card') !== null")
        yield "units"
        page.locator(".unit-card").first.click()
        yield "dialog"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing(chromium, pages, engine, kind, width, scheme):
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(pages[kind].as_uri())
    settled(page)
    found = {"as it opens": violations(page, engine)}
    for view in opened_views(page):
        found[view] = violations(page, engine)
    context.close()
    assert not any(found.values()), found


def test_axe_would_find_something(chromium, pages, engine):
    """A picture without words, a jump in the headings and grey on grey are seen, so the engine runs."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto(pages["checkup"].as_uri())
    page.evaluate(
        """document.querySelector('main').insertAdjacentHTML('beforeend',
            '<img src="data:,"><h5>Deep</h5><p style="color:#999;background:#aaa">grey</p>')"""
    )
    assert {"image-alt", "heading-order", "color-contrast"} <= {rule for rule, *_ in violations(page, engine)}
    context.close()
