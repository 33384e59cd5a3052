"""The page in a real browser: nothing is fetched, nothing complains, everything is drawn."""

import json
import shutil

import pytest
from torch import nn

from browser import fetched, launched, until, watched
from convscope.cost import sweep
from convscope.report.pages.report import write_page
from convscope.report.pages.sweep import write_plot

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium():
    with launched() as browser:
        yield browser


@pytest.fixture
def opened(chromium, report, tmp_path):
    """The page, with every request, message and dialog that it made."""
    shutil.copytree(report.folder, tmp_path, dirs_exist_ok=True)
    path = write_page(report, tmp_path / "index.html")
    with watched(chromium) as page:
        page.goto(path.as_uri())
        until(page, "document.querySelectorAll('[data-drawn=yes]').length >= 10")
        yield page


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
    assert opened.seen["requests"]
    assert fetched(opened) == []
    assert opened.seen["console"] == []
    assert opened.seen["errors"] == []


def test_charts_are_drawn_those_in_closed_parts_when_they_open(opened):
    drawn = """[...document.querySelectorAll('[data-chart]')].map(
        (each) => [each.dataset.chart, each.querySelectorAll('svg path').length])"""
    counts = dict(opened.evaluate(drawn))
    checkup = {f"checkup-{name}" for name in ("statistics", "gains", "gap", "percentiles")}
    shown = {name for name, paths in counts.items() if paths > 3}
    of_stem = {"stem-aliasing", "stem-coverage", "stem-shifts"}
    assert shown == {"memory-cost", "accuracy", "loss"} | checkup | of_stem
    opened.evaluate("document.querySelectorAll('details.published').forEach((each) => { each.open = true; })")
    until(opened, "document.querySelectorAll('[data-drawn=yes]').length === 11")
    assert dict(opened.evaluate(drawn))["memory-published"] > 3
    assert opened.locator("#chart-accuracy svg").get_by_text("with batch norm").count() >= 1
    assert opened.locator("#chart-memory-cost svg").get_by_text("rule of thumb: 7.73 MiB").count() == 1


def test_a_number_in_a_table_says_how_it_was_had_once_pointed_at(opened):
    def title(path):
        number = opened.locator(f"tbody [data-field='{path}']").first
        number.hover()
        number.hover()
        return number.get_attribute("title")

    macs = "multiply–accumulates of its forward pass, whole batch"
    assert title("cost.rows.0.macs") == f"65,028,096 · {macs}"
    assert title("cost.rows.1.macs") == macs  # 0 is written whole
    assert title("checkup.layers.0.momentum").startswith("weight of the new value")


def test_what_is_folded_away_is_printed_but_charts_that_were_never_drawn_are_not(opened):
    opened.emulate_media(media="print")
    hidden = """() => {
        dispatchEvent(new Event('beforeprint'));
        return [...document.querySelectorAll('[data-chart]')]
            .filter((each) => each.dataset.drawn !== 'yes')
            .map((each) => getComputedStyle(each.closest('figure')).display);
    }"""
    assert opened.evaluate(hidden) == ["none"]
    assert opened.evaluate("document.getElementById('graph-list')?.open ?? true")
    assert not opened.locator("#units").is_visible()  # cards are made when they are scrolled to
    assert "aren’t printed" in opened.locator("#gallery .only-printed").inner_text()
    closed = "[...document.querySelectorAll('main details:not([open])')].map((each) => each.className)"
    assert set(opened.evaluate(closed)) == {"licences", "how"}
    assert (
        opened.evaluate("document.querySelectorAll('#checkup details[open], #gallery details[open]').length")
        >= 1
    )


def test_what_was_opened_for_the_printer_is_closed_afterwards(opened):
    shown = "[...document.querySelectorAll('main details')].map((each) => each.open)"
    before = opened.evaluate(shown)
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.evaluate(shown).count(True) > before.count(True)
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.evaluate(shown) == before


def test_what_a_chart_shows_can_be_chosen(opened):
    def marks(label):
        return opened.locator(f"#chart-checkup-statistics svg [aria-label*='{label}']").count()

    assert (marks("measured: 0.3;"), marks("measured: 1.049;")) == (1, 0)
    opened.locator("#chart-checkup-statistics select[name=statistic]").select_option("standard deviations")
    until(opened, "document.querySelector(\"#chart-checkup-statistics svg [aria-label*='1.049']\") !== null")
    assert marks("measured: 0.3;") == 0
    assert opened.locator("#chart-checkup-gains svg [aria-label*='dead']").count() >= 1


def test_each_finding_that_matters_leads_to_its_only_card(opened, report):
    links = opened.locator("#findings .to-card")
    assert links.count() == len(report.findings) == 5
    shown = []
    for place, ranked in enumerate(report.findings):
        links.nth(place).click()
        fault = ranked.finding.fault
        if ranked.reading == "fold":  # whose section tells the same in its own words
            until(opened, "location.hash === '#fold'")
            continue
        until(
            opened,
            f"document.querySelector('.kind:target h3, .kind:target h4')?.innerText.includes('{fault}')",
        )
        card = opened.locator(".kind:target > .finding")
        assert card.is_visible()  # also in what was folded away
        until(opened, "document.querySelector('.kind:target').getBoundingClientRect().top < innerHeight / 2")
        assert "What to do" in card.inner_text() or not ranked.finding.remedy
        shown.append(fault)
    assert len(shown) >= 3
    body = opened.evaluate("document.querySelector('main').innerHTML")
    assert "What to do" not in body[: body.index('id="cost"')]
    ids = opened.evaluate("[...document.querySelectorAll('[id]')].map((each) => each.id)")
    assert len(ids) == len(set(ids))


def test_a_finding_leads_to_the_page_about_its_fault(opened):
    opened.locator("a[href='#page-stale-statistics']").first.click()
    until(opened, "document.querySelector('.fault-page').open")
    assert opened.get_by_text("How to mend it").first.is_visible()


def test_gallery_pictures_are_loaded_when_they_come_into_view(opened):
    def sprites():
        return {url.rsplit("/", 1)[1] for url in opened.seen["requests"] if url.endswith(".webp")}

    assert sprites() == set()
    opened.locator("#units").scroll_into_view_if_needed()
    until(opened, "document.querySelector('.picture')?.style.backgroundImage")
    assert sprites() >= {"conv1-patches-0.webp", "conv1-projections-0.webp"}
    assert {name.split("-")[0] for name in sprites()} == {"conv1"}


def test_units_of_the_first_layer_can_be_asked_for_by_their_aliasing(opened):
    opened.locator("#units").scroll_into_view_if_needed()
    opened.locator("[data-filter=aliased]").click()
    assert opened.locator("#unit-count").inner_text().startswith("0 of 40 units")  # the diagnosis says 0.2


def test_a_link_to_a_unit_opens_it(opened):
    opened.goto(opened.url.split("#")[0] + "#gallery/1/9")
    opened.reload()
    opened.wait_for_selector("dialog[open]")
    assert opened.locator("#unit-detail h3").inner_text() == "conv2, unit 9"
    opened.keyboard.press("Escape")
    assert opened.locator("dialog[open]").count() == 0


def test_hostile_names_do_nothing(opened, hostile):
    opened.locator("#units").scroll_into_view_if_needed()
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
    assert "isn’t beside this page" in opened.locator("#units").inner_text()
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


def test_how_numbers_were_had_can_be_read_without_pointing_at_them(opened):
    how = opened.locator("header.top details.how")
    how.locator("summary").press("Enter")
    how.locator("dl").wait_for()
    told = how.locator("dl > div").all_inner_texts()
    assert any(each.startswith("Does it fit?") and "max_memory_allocated" in each for each in told)
    opened.locator("#checkup details.how summary").press("Enter")
    opened.locator("#checkup details.how dl").wait_for()
    assert opened.locator("#checkup details.how dt", has_text="Momentum").count() == 1


def test_a_link_to_a_section_leads_to_its_heading_once_all_is_drawn(chromium, report, tmp_path):
    shutil.copytree(report.folder, tmp_path, dirs_exist_ok=True)
    path = write_page(report, tmp_path / "index.html")
    with watched(chromium) as page:
        page.goto(path.as_uri() + "#stem")
        until(page, "document.querySelectorAll('[data-drawn=yes]').length >= 10")
        until(page, "Math.abs(document.getElementById('stem').getBoundingClientRect().top - 16) < 3")
