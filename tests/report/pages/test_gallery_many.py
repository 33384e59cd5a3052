"""A gallery of thousands of units: each has its own pictures, and only cards near the view are made."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from browser import launched, until, watched
from report.pages.many import colours, gallery_of

pytestmark = pytest.mark.browser
COUNT_CARDS = """window.cards = 0;
const make = document.createElement.bind(document);
document.createElement = (name) => { window.cards += name === 'button'; return make(name); };"""


@pytest.fixture(scope="module")
def chromium():
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def large(gallery, tmp_path_factory):
    """One layer of 4,800 units whose pictures are in 19 files."""
    return gallery_of(gallery, 4800, tmp_path_factory.mktemp("large"))


def test_each_unit_s_own_patches_stand_beside_its_own_projections(chromium, large):
    with watched(chromium) as page:
        page.goto(f"file://{large}/index.html")
        until(page, "document.querySelectorAll('.slot').length > 0")
        for unit in (0, 17, 255, 256, 4607, 4608, 4798):
            page.evaluate(f"location.hash = '#gallery/0/{unit}'")
            until(page, f"document.querySelector('dialog[open] h3')?.textContent.endsWith(' {unit}')")
            until(
                page,
                "[...document.querySelectorAll('dialog .picture')].every((e) => e.style.backgroundImage)",
            )
            page.wait_for_timeout(50)
            places = [page.locator("dialog .picture").nth(number) for number in (0, 1)]
            assert places[0].bounding_box()["x"] < places[1].bounding_box()["x"]
            for place, colour in zip(places, colours(unit), strict=True):
                pixels = np.asarray(Image.open(BytesIO(place.screenshot())).convert("RGB")).astype(int)
                spots = [len(pixels) * each // 6 for each in (1, 3, 5)]
                assert np.abs(pixels[np.ix_(spots, spots)] - colour).max() <= 2, unit


SCROLL = """async () => {
    let most = 0;
    for (let y = 0; y < document.body.scrollHeight; y += 2500) {
        scrollTo({ top: y, behavior: 'instant' });
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
        most = Math.max(most, document.querySelectorAll('.slot').length);
    }
    return [most, scrollY];
}"""


def test_of_thousands_of_units_only_those_near_the_view_are_made(chromium, large):
    with watched(chromium, width=1200) as page:
        page.add_init_script(COUNT_CARDS)
        page.goto(f"file://{large}/index.html")
        until(page, "document.querySelectorAll('.slot').length > 0")
        assert page.evaluate("window.cards") <= 60  # 30 cards, a tab, filters
        most, bottom = page.evaluate(SCROLL)
        assert most <= 40
        assert bottom > 100_000
        page.evaluate("scrollTo({ top: 0, behavior: 'instant' })")
        page.wait_for_timeout(100)
        for change in (
            lambda: page.locator("#unit-order").select_option("maximum"),
            lambda: page.locator("#unit-search").fill("image 12"),
        ):
            page.evaluate("window.cards = 0")
            change()
            page.wait_for_timeout(300)
            assert 0 < page.evaluate("window.cards") <= 40
        assert page.seen["errors"] == []
