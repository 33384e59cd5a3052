"""The network's graph in a real browser: opening, choosing, links, keys, and what happens without it."""

import json
from dataclasses import replace
from urllib.parse import quote

import pytest
from torch import nn

from browser import fetched, launched, until, watched
from convscope.core.units import format_bytes, format_count, format_percent
from convscope.report.pages.offline import static_text
from convscope.report.pages.report import page_html, write_page
from report.graphs import Dense, Listed, Residual, Twice, chain, with_graph

pytestmark = pytest.mark.browser

DRAWN = "document.getElementById('graph-canvas').dataset.drawn"


@pytest.fixture(scope="module")
def chromium():
    with launched() as browser:
        yield browser


@pytest.fixture
def shown(chromium, report, tmp_path):
    """Opens the page of a network, at its graph, and gives the page."""
    opened = []

    def show(model, shape, hash_="graph", **settings):
        found = replace(with_graph(report, model, shape), gallery=None)
        path = write_page(found, tmp_path / "index.html")
        pages = watched(chromium, **settings)
        page = pages.__enter__()
        opened.append(pages)
        page.goto(f"{path.as_uri()}#{hash_}")
        until(page, f"{DRAWN} === 'yes'")
        return page

    yield show
    for pages in opened:
        pages.__exit__(None, None, None)


def test_what_is_printed_of_the_network_is_its_list(shown):
    page = shown(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (2, 3, 8, 8))
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#graph-list").inner_text().count("Conv2d") == 1
    assert not page.locator("#graph-drawing").is_visible()
    assert page.locator("table.cost thead button.sort").first.evaluate(
        "each => getComputedStyle(each).display"
    ) == ("contents")  # Chromium leaves buttons out of heads that it repeats on the next page


def names(page):
    return page.evaluate(
        "[...document.querySelectorAll('.node .name')].map((each) => each.textContent.trim())"
    )


def lines(page):
    return page.locator("#graph-canvas .edge").count()


def chosen(page):
    return page.locator("#graph-detail h3").inner_text()


def focused(page):
    return page.evaluate("document.activeElement.querySelector?.('.name')?.textContent.trim()")


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def fold_up(page, *addresses):
    """Close groups by their names on their frames."""
    for address in addresses:
        page.locator(".closer", has_text=address).first.dispatch_event("click")


def test_nothing_is_fetched_and_nothing_complains(shown):
    page = shown(Residual(), (2, 4, 8, 8))
    page.locator("#graph-measure").select_option("params")
    for button in ("in", "out", "fit", "reset"):
        page.locator(f"#graph-{button}").click()
    assert fetched(page) == []
    assert page.seen["console"] == []
    assert page.seen["errors"] == []


def test_every_layer_and_every_edge_of_a_small_network_is_drawn(shown):
    page = shown(Residual(), (2, 4, 8, 8))
    network = ["input", "conv", "bn", "add", "cat", "convolution", "fc"]
    assert names(page)[:7] == network
    assert names(page)[7:] == ["log_softmax", "nll_loss"]
    assert lines(page) == 8 + 2
    assert page.locator("#graph-list").get_attribute("open") is None
    title = page.locator(".edge[data-source='1'] title").first.text_content()
    assert title == "2 × 4 × 8 × 8"


def test_a_group_closes_by_its_frame_and_opens_by_its_sign(shown):
    page = shown(Twice(), (2, 3, 8, 8))
    assert names(page)[:4] == ["input", "stem", "body.0", "body.1"]
    before = lines(page)
    fold_up(page, "body (call 2)")
    assert names(page)[:5] == ["input", "stem", "body.0", "body.1", "body (call 2)"]
    assert lines(page) == before - 1
    assert chosen(page) == "body#2"
    group = page.locator(".node.group")
    assert group.get_attribute("aria-expanded") == "false"
    assert "module of 2 layers" in group.get_attribute("aria-label")
    page.locator("[data-toggle]").click()
    assert "body.0 (call 2)" in names(page)
    assert lines(page) == before
    assert page.locator("#graph-status").inner_text() == "body (call 2) is open: 2 nodes"


def test_the_panel_tells_a_node_s_cost_and_what_it_reads(shown):
    page = shown(Residual(), (2, 4, 8, 8))
    page.locator(".node .name", has_text="convolution").click()
    text = page.locator("#graph-detail").inner_text()
    macs = 2 * 2 * 6 * 6 * 8 * 9
    assert format_count(macs) in text
    assert format_count(2 * macs) in text
    assert page.locator("#graph-detail .neighbours button").all_inner_texts() == ["cat", "fc"]
    assert page.evaluate("location.hash") == "#graph=" + quote("self#1:convolution.1", safe="")
    page.locator("#graph-detail .neighbours button").first.click()
    assert chosen(page) == "self#1:cat.1"
    page.locator("#graph-detail a", has_text="Cost table").click()
    assert page.locator("tr.pointed-at th code").inner_text() == "self#1:cat.1"


def test_colours_are_shares_of_the_number_that_was_chosen(shown):
    page = shown(Residual(), (2, 4, 8, 8))

    def shares():
        return page.evaluate(
            "[...document.querySelectorAll('.node .share')].map((each) => each.textContent.trim())"
        )

    convolutions = [2 * 4 * 64 * 4 * 9, 2 * 2 * 36 * 8 * 9, 2 * 72 * 5]
    assert shares() == [format_percent(each / sum(convolutions)) for each in convolutions]
    params = [4 * 4 * 9 + 4, 8, 2 * 8 * 9, 72 * 5 + 5]
    page.locator("#graph-measure").select_option("params")
    assert shares() == [format_percent(each / sum(params)) for each in params]
    assert page.locator("#graph-most").inner_text() == format_percent(params[-1] / sum(params))
    assert page.locator("#graph-measure option").all_inner_texts() == [
        "MACs",
        "Parameters",
        "Saved for backward",
    ]


def test_keys_go_along_edges_open_and_close(shown):
    page = shown(Twice(), (2, 3, 8, 8))
    page.locator(".node").first.focus()
    press(page, "ArrowDown", "ArrowDown")
    assert focused(page) == "body.0"
    press(page, "Escape")
    assert focused(page) == "body"
    assert chosen(page) == "body#1"
    press(page, "ArrowUp")
    assert focused(page) == "stem"
    press(page, "ArrowDown", "Enter")
    assert focused(page) == "body.0"
    press(page, "Escape", " ")
    assert focused(page) == "body.0"
    press(page, "End")
    assert focused(page) == "nll_loss"
    press(page, "Home")
    assert focused(page) == "input"
    assert page.locator(".node[tabindex='0']").count() == 1
    assert page.locator(".node[aria-current='true']").count() == 1


def test_tab_reaches_the_graph_and_focus_is_visible(shown):
    page = shown(Twice(), (2, 3, 8, 8))
    page.locator("#graph-save").focus()
    press(page, "Tab")
    assert focused(page) == "input"
    width = "getComputedStyle(document.activeElement.querySelector('.box')).strokeWidth"
    assert page.evaluate(width) == "3.5px"


@pytest.mark.parametrize("path", ["stages.1.0", "stages.1.0#1"])
def test_a_link_to_a_node_opens_what_is_around_it(shown, path):
    page = shown(Listed(30), (2, 4, 8, 8), f"graph={quote(path, safe='')}")
    assert chosen(page) == "stages.1.0#1"
    assert focused(page) == "stages.1.0"
    page.evaluate("location.hash = '#graph=stages'")
    until(page, "document.querySelector('#graph-detail h3').textContent !== 'stages.1.0#1'")
    assert page.seen["errors"] == []


@pytest.mark.parametrize("link", ["graph=nothing", "graph=%E0%A4%A", "graph=" + quote('"><b>', safe="")])
def test_a_link_to_nothing_does_no_harm(shown, link):
    page = shown(Twice(), (2, 3, 8, 8), "graph")
    page.evaluate(f"location.hash = {json.dumps('#' + link)}")
    page.wait_for_timeout(100)
    assert chosen(page) == "input"
    assert page.seen["errors"] == []


def test_never_more_than_150_nodes_are_seen(shown):
    wide = nn.Sequential(*[nn.Sequential(*[nn.PReLU() for _ in range(58)]) for _ in range(5)])
    page = shown(wide, (2, 4))
    for address in range(5):
        page.evaluate(f"location.hash = '#graph={address}.0'")
        until(page, f"document.querySelector('#graph-detail h3').textContent === '{address}.0#1'")
        assert 58 <= page.locator("[data-node]").count() <= 150
    assert page.locator("#graph-path").is_hidden()


def test_a_module_that_does_not_fit_beside_the_others_is_looked_into(shown):
    def nested(depth):
        inner = [nn.PReLU() for _ in range(55)]
        return nn.Sequential(*inner, *([nested(depth - 1)] if depth else []))

    page = shown(nested(3), (2, 4), "graph=55.55.55.0")
    assert chosen(page) == "55.55.55.0#1"
    assert page.locator("[data-node]").count() <= 150
    path = page.locator("#graph-path button")
    assert path.all_inner_texts()[0] == "zfnet"
    assert page.locator(".stub").all_text_contents() == ["what comes before", "what comes after"]
    path.first.click()
    assert names(page)[0] == "input"
    assert page.locator("#graph-path").is_hidden()


def test_a_network_of_500_layers_opens_run_by_run(shown):
    page = shown(chain(500), (2, 4, 8, 8))
    assert page.locator("[data-node]").count() == 25
    page.locator("[data-toggle]").nth(3).dispatch_event("click")
    assert page.locator("[data-node]").count() == 25 - 1 + 21
    assert chosen(page) == "65#1"


def test_where_every_layer_reads_all_before_it_all_edges_are_drawn(shown):
    page = shown(Dense(12), (2, 4, 8, 8))
    layers = 1 + 12  # each of which reads all before it, by a concatenation
    assert len([name for name in names(page) if name.startswith("layers")]) == 12
    drawn = page.evaluate(
        "[...document.querySelectorAll('.edge .line')].map((each) => each.getAttribute('d'))"
    )
    assert len(drawn) == layers * (layers - 1) // 2 + 12 + 3
    assert not any("NaN" in path or "undefined" in path for path in drawn)


def test_without_javascript_or_a_layout_there_is_a_list(chromium, report, tmp_path, monkeypatch):
    found = with_graph(report, Twice(), (2, 3, 8, 8))
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(write_page(found, tmp_path / "index.html").as_uri())
    assert page.locator("#graph-list > ul").is_visible()
    assert page.locator("#graph-list li code").all_inner_texts()[:4] == ["input", "stem", "body", "body.0"]
    assert page.locator("#graph-drawing").is_hidden()
    context.close()
    broken = "var dagre = { graphlib: { Graph: class { setGraph() { throw new Error('no layout'); } } } };"
    monkeypatch.setattr(
        "convscope.report.pages.graph.static_text",
        lambda name: broken if name == "dagre.min.js" else static_text(name),
    )
    (tmp_path / "broken.html").write_text(page_html(found), encoding="utf-8")
    with watched(chromium) as page:
        page.goto((tmp_path / "broken.html").as_uri() + "#graph")
        until(page, f"{DRAWN} === 'failed'")
        assert page.locator("#graph-failed").is_visible()
        assert page.locator("#graph-list > ul").is_visible()
        assert page.locator("#graph-drawing").is_hidden()
        assert page.seen["errors"] == []


def test_hostile_names_do_nothing(shown, hostile):
    name = hostile.replace(".", "")
    model = nn.Sequential()
    model.add_module(name, nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()))
    page = shown(model, (2, 3, 8, 8))
    fold_up(page, "</script>")
    assert chosen(page) == f"{name}#1"
    page.wait_for_timeout(100)
    assert page.seen["dialogs"] == []
    assert page.evaluate("document.querySelectorAll('[onerror]').length") == 0


def test_numbers_are_written_as_everywhere_else(chromium, report, tmp_path):
    numbers = [0, 1, 999, 1000, 1023, 2176, 2088, 34944, 1135256096, 10**12, 995, 9995, 1047552]
    words = static_text("words.js")
    shares = [0, 0.00123, 0.00125, 0.0625, 0.9398, 1]
    with watched(chromium) as page:
        page.goto(write_page(report, tmp_path / "index.html").as_uri())
        written = [
            page.evaluate(f"(values) => {{ {words}; return values.map({name}); }}", values)
            for name, values in (("count", numbers), ("bytes", numbers), ("percent", shares))
        ]
    assert written[:2] == [list(map(format_count, numbers)), list(map(format_bytes, numbers))]
    assert written[2] == list(map(format_percent, shares))


def test_the_picture_downloads_as_svg_with_its_colours(shown, tmp_path):
    page = shown(Twice(), (2, 3, 8, 8))
    with page.expect_download() as download:
        page.locator("#graph-save").click()
    download.value.save_as(tmp_path / "network.svg")
    text = (tmp_path / "network.svg").read_text(encoding="utf-8")
    assert download.value.suggested_filename == "network.svg"
    assert text.startswith("<svg")
    assert "body.0 (call 2)" in text
    assert "fill: rgb" in text
    assert "var(--" not in text


@pytest.mark.parametrize("width", [390, 820, 1440])
def test_the_page_is_never_wider_than_the_window(shown, width):
    page = shown(Twice(), (2, 3, 8, 8), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
