"""The page in a real browser: nothing is fetched, nothing complains, everything is drawn."""

import json
import os
import shutil

import pytest
from torch import nn

from convscope.cost import sweep
from convscope.report.page import write_page
from convscope.report.plot import write_plot

FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
NAMES = ("chromium", "chromium-browser", "google-chrome")

CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
try:
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = None
if CHROMIUM is None or sync_playwright is None:
    lacking = "no Chromium found" if CHROMIUM is None else "playwright isn't installed"
    if os.environ.get("CONVSCOPE_REQUIRE_BROWSER") == "1":
        pytest.fail(f"{lacking}, and CONVSCOPE_REQUIRE_BROWSER=1", pytrace=False)
    pytest.skip(f"{lacking}: the browser tests are skipped", allow_module_level=True)

pytestmark = pytest.mark.browser


def until(page, expression):
    """Wait for an expression to hold; playwright's own waiting needs eval, which the page forbids."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never: {expression}")


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def opened(chromium, report, tmp_path):
    """The page, with every request, message and dialog that it made."""
    shutil.copytree(report.folder, tmp_path, dirs_exist_ok=True)
    path = write_page(report, tmp_path / "index.html")
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.seen = {"requests": [], "console": [], "errors": [], "dialogs": []}
    page.on("request", lambda request: page.seen["requests"].append(request.url))
    page.on("console", lambda message: page.seen["console"].append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: page.seen["errors"].append(str(error)))
    page.on("dialog", lambda dialog: (page.seen["dialogs"].append(dialog.message), dialog.dismiss()))
    page.goto(path.as_uri())
    until(page, "document.querySelectorAll('[data-drawn=yes]').length >= 3")
    yield page
    context.close()


def scroll_through(page):
    page.evaluate(
        """async () => {
            for (let y = 0; y < document.body.scrollHeight; y += 600) {
                scrollTo(0, y);
                await new Promise((done) => setTimeout(done, 30));
            }
        }"""
    )


def test_nothing_is_fetched_and_nothing_complains(opened):
    scroll_through(opened)
    opened.get_by_role("tab").nth(1).click()
    opened.wait_for_timeout(200)
    requests = [url for url in opened.seen["requests"] if not url.startswith("data:")]
    assert requests
    assert [url for url in requests if not url.startswith("file:")] == []
    assert opened.seen["console"] == []
    assert opened.seen["errors"] == []


def test_charts_are_drawn_those_in_closed_parts_when_they_open(opened):
    drawn = """[...document.querySelectorAll('[data-chart]')].map(
        (each) => [each.dataset.chart, each.querySelectorAll('svg path').length])"""
    counts = dict(opened.evaluate(drawn))
    checkup = {f"checkup-{name}" for name in ("statistics", "gains", "gap", "percentiles")}
    shown = {name for name, paths in counts.items() if paths > 3}
    assert shown == {"memory-cost", "accuracy", "loss"} | checkup
    opened.evaluate("document.querySelectorAll('details.published').forEach((each) => { each.open = true; })")
    until(opened, "document.querySelectorAll('[data-drawn=yes]').length === 8")
    assert dict(opened.evaluate(drawn))["memory-published"] > 3
    assert opened.locator("#chart-accuracy svg").get_by_text("with batch norm").count() >= 1
    assert opened.locator("#chart-memory-cost svg").get_by_text("rule of thumb: 7.73 MiB").count() == 1


def test_what_a_chart_shows_can_be_chosen(opened):
    def marks(label):
        return opened.locator(f"#chart-checkup-statistics svg [aria-label*='{label}']").count()

    assert (marks("measured: 0.3;"), marks("measured: 1.049;")) == (1, 0)
    opened.locator("#chart-checkup-statistics select[name=statistic]").select_option("standard deviations")
    until(opened, "document.querySelector(\"#chart-checkup-statistics svg [aria-label*='1.049']\") !== null")
    assert marks("measured: 0.3;") == 0
    assert opened.locator("#chart-checkup-gains svg [aria-label*='dead']").count() >= 1


def test_a_finding_leads_to_the_page_about_its_fault(opened):
    opened.locator("a[href='#page-stale-statistics']").first.click()
    until(opened, "document.querySelector('.fault-page').open")
    assert opened.get_by_text("How to mend it").first.is_visible()


def test_gallery_pictures_are_loaded_when_they_come_into_view(opened):
    pictures = opened.locator("#gallery .picture")
    assert pictures.count() == 2 * 35  # 40 units, 5 of them dead
    assert opened.evaluate("document.querySelector('.picture').style.backgroundImage") == ""
    opened.locator("#gallery").scroll_into_view_if_needed()
    until(opened, "document.querySelector('.picture').style.backgroundImage !== ''")
    loaded = opened.evaluate(
        """async () => {
            const image = new Image();
            image.src = document.querySelector('.picture').dataset.src;
            await image.decode();
            return [image.naturalWidth, image.naturalHeight];
        }"""
    )
    assert loaded == [7 * 84, 6 * 84]


def test_dead_units_are_shown_on_demand_and_the_order_can_be_changed(opened):
    assert opened.locator(".unit-card").count() == 35
    opened.locator("#unit-order").select_option("maximum")
    assert opened.locator(".unit-card b").first.inner_text() == "unit 39"
    opened.locator("#show-dead").check()
    opened.locator("#unit-order").select_option("index")
    opened.locator(".unit-card").nth(35).scroll_into_view_if_needed()
    until(opened, "document.querySelectorAll('.unit-card').length === 40")
    assert opened.locator(".unit-card.dead").count() == 5
    assert "5 dead" in opened.locator("#unit-count").inner_text()


def test_numbers_of_the_gallery_are_those_of_its_data(opened):
    opened.locator(".unit-card").first.click()
    fields = opened.eval_on_selector_all(
        "[data-gallery]", "all => all.map((e) => [e.dataset.gallery, e.textContent])"
    )
    data = opened.evaluate("window.convscopeGallery")
    assert len(fields) > 100
    for path, text in fields:
        value = data
        for key in path.split("."):
            value = value[int(key)] if isinstance(value, list) else value[key]
        if path.endswith((".index", ".name")):
            assert text == str(value)
        elif path.endswith((".maximum", ".value")):
            assert float(text) == pytest.approx(value, rel=5e-3)
        elif path.endswith(".active_images"):
            assert text == f"{100 * value:.1f} %"
        elif path.endswith(".position"):
            assert text == ", ".join(map(str, value))
        else:
            assert text in (f"{value['top']} to {value['bottom']}", f"{value['left']} to {value['right']}")


def test_a_link_to_a_unit_opens_it(opened):
    opened.goto(opened.url.split("#")[0] + "#gallery/1/9")
    opened.reload()
    opened.wait_for_selector("dialog[open]")
    assert opened.locator("#unit-detail h3").inner_text() == "conv2, unit 9"
    opened.keyboard.press("Escape")
    assert opened.locator("dialog[open]").count() == 0


def test_hostile_names_do_nothing(opened, hostile):
    opened.locator(".unit-card").first.click()
    assert hostile in opened.locator("#unit-detail").inner_text()
    opened.wait_for_timeout(100)
    assert opened.seen["dialogs"] == []
    assert opened.evaluate("document.querySelectorAll('[onerror]').length") == 0
    assert hostile in opened.evaluate(
        "JSON.parse(document.getElementById('data').textContent).subject.classes"
    )


def test_a_script_that_is_not_the_page_s_does_not_run(opened):
    opened.evaluate(
        """() => {
            const script = document.createElement('script');
            script.textContent = 'window.intruder = true';
            document.body.append(script);
        }"""
    )
    assert opened.evaluate("window.intruder") is None
    assert any("Content Security Policy" in message for message in opened.seen["console"])


@pytest.mark.parametrize("width", [390, 820, 1440])
def test_the_page_is_never_wider_than_the_window(opened, width):
    opened.set_viewport_size({"width": width, "height": 900})
    opened.wait_for_timeout(150)
    assert opened.evaluate("document.documentElement.scrollWidth") <= width


def test_without_its_folder_the_gallery_says_so(opened, report, tmp_path):
    shutil.move(tmp_path / "gallery", tmp_path / "elsewhere")
    opened.reload()
    assert "isn't beside this page" in opened.locator("#units").inner_text()
    assert opened.locator(".cost tbody tr").count() > 0


def test_the_data_on_the_page_is_the_report_s_json(opened, report):
    data = json.loads(opened.evaluate("document.getElementById('data').textContent"))
    assert data["cost"] == json.loads(report.cost.to_json())


def test_the_plot_of_a_sweep_is_drawn_without_the_network(chromium, tmp_path):
    found = sweep(nn.Linear(4, 2), (1, 4), "batch", (1, 2, 4))
    context = chromium.new_context()
    page = context.new_page()
    seen = []
    page.on("request", lambda request: seen.append(request.url))
    page.on("console", lambda message: seen.append(message.text))
    page.on("pageerror", lambda error: seen.append(str(error)))
    address = write_plot(found, tmp_path / "plot.html").as_uri()
    page.goto(address)
    until(page, "document.getElementById('plot').dataset.drawn !== undefined")
    assert page.evaluate("document.getElementById('plot').dataset.drawn") == "yes"
    texts = page.evaluate("[...document.querySelectorAll('#plot text')].map(text => text.textContent)")
    assert {"memory (MiB)", "work (GFLOPs, whole batch)", "batch (inputs)", "allocated peak"} <= set(texts)
    assert page.evaluate("document.querySelectorAll('tbody tr').length") >= 3
    assert seen == [address]
    context.close()
