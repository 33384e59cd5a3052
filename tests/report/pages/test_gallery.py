"""A gallery's own page in a real browser: nothing is fetched, names do nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from browser import fetched, launched, until, watched
from convscope import __version__
from convscope.networks import Preprocessing
from convscope.report.pages.gallery import gallery_html
from convscope.sight import Origin, gallery
from convscope.sight.images import ImageSource
from convscope.sight.picturing.folder import write_index

pytestmark = pytest.mark.browser
HOSTILE = "<img src=x onerror=alert(1)>&amp;${1}'"


@pytest.fixture(scope="module")
def chromium():
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The gallery of a small network with a dead unit, of pictures in a folder, one of them broken."""
    pictures = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(0, 256, (12, 24, 24, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(pictures / f"{HOSTILE if number % 2 else 'plain'} {number:02d}.png")
    (pictures / f"{HOSTILE}.jpg").write_bytes(b"no picture")
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 20, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(20, 8, 3), nn.ReLU(),
    ).eval()  # fmt: skip
    with torch.no_grad():
        net[3].bias[4] = -100
    prepare = Preprocessing((24, 24), mean=(0.5,) * 3, std=(0.25,) * 3)
    out = tmp_path_factory.mktemp("made") / "gallery"
    return gallery(net, ImageSource.of_pictures(pictures, prepare), out=out, top=4)


@pytest.fixture
def opened(chromium, found):
    with watched(chromium) as page:
        yield visit(page, found.folder)
        assert fetched(page) == []
        assert page.seen["console"] == []
        assert page.seen["errors"] == []
        assert page.seen["dialogs"] == []


def visit(page, folder, fragment=""):
    page.goto(f"file://{folder}/index.html{fragment}")
    until(page, "document.querySelectorAll('[role=tab]').length > 0")
    return page


def numbers(page):
    """Channels of the cards, in the order in which they are seen."""
    return page.evaluate(
        """[...document.querySelectorAll('.slot')]
            .sort((a, b) => a.ariaPosInSet - b.ariaPosInSet)
            .map((slot) => Number(slot.querySelector('[data-gallery$=".index"]').textContent))"""
    )


def at_layer(page, number):
    page.locator(f"#tab-{number}").click()
    return page


def test_it_says_by_which_rule_and_what_was_skipped(opened, found):
    words = opened.locator("#gallery").inner_text()
    assert f"Rule of the projections: {found.rule}." in words
    assert found.rule_reason in words
    opened.locator("details.damaged").evaluate("each => { each.open = true; }")
    assert f"{HOSTILE}.jpg" in opened.locator("details.damaged").inner_text()
    at_layer(opened, 1)
    census = found.layers[1].census
    assert f"{len(census.rewritten)} ReLUs rewritten" in opened.locator(".census").inner_text()


def test_it_says_what_it_was_made_of_and_when(chromium, found, tmp_path):
    made = Origin.now(f"zfnet {HOSTILE}", f"run/{HOSTILE}.safetensors", "photos")
    write_index(replace(found, origin=made), Path(found.folder))
    try:
        with watched(chromium) as page:
            words = visit(page, found.folder).locator("header").inner_text()
            assert page.title() == f"zfnet {HOSTILE} · gallery · convscope"
            assert page.seen["dialogs"] == []
    finally:
        write_index(found, Path(found.folder))
    for told in (made.network, made.weights, "12 of photos, 24 × 24", made.written, __version__,
                 torch.__version__):  # fmt: skip
        assert told in words


def test_of_a_module_its_class_is_told_and_no_day(opened):
    words = opened.locator("header").inner_text()
    assert "Sequential" in words
    assert "Made\nwith convscope" in words
    assert "Weights" not in words


def test_every_number_is_that_of_the_data(opened, found):
    at_layer(opened, 1).locator(".unit-card").first.click()
    data = json.loads(found.to_json())
    fields = opened.eval_on_selector_all(
        ".slot [data-gallery], dialog [data-gallery]",
        "all => all.map((e) => [e.dataset.gallery, e.textContent])",
    )
    assert len(fields) > 50
    for path, text in fields:
        value = data
        for key in path.split("."):
            value = value[int(key)] if isinstance(value, list) else value[key]
        text = text.replace("−", "-")
        if path.endswith((".index", ".name", "num_images")):
            assert text == str(value)
        elif path.endswith((".active_images", ".active_positions")):
            assert float(text.removesuffix(" %")) == pytest.approx(100 * value, abs=0.05)
        elif path.endswith(".position"):
            assert text == ", ".join(map(str, value))
        elif path.endswith(".box"):
            assert text in (f"{value['top']} to {value['bottom']}", f"{value['left']} to {value['right']}")
        elif value is None:
            assert text == "–"
        else:
            assert float(text) == pytest.approx(value, rel=5e-3)


@pytest.mark.parametrize(
    ("order", "key"),
    [
        ("index", lambda unit: unit.index),
        ("maximum", lambda unit: -unit.maximum),
        ("active_images", lambda unit: -unit.active_images),
        ("active_positions", lambda unit: unit.active_positions),
        ("selectivity", lambda unit: -unit.scores.selectivity if unit.scores else 9),
        ("masking_drop", lambda unit: -unit.scores.masking_drop if unit.scores else 9),
    ],
)
def test_units_are_ordered_by_a_number_those_without_it_last(opened, found, order, key):
    at_layer(opened, 1).locator("#unit-order").select_option(order)
    living = [unit for unit in found.layers[1].units if not unit.dead]
    assert numbers(opened) == [unit.index for unit in sorted(living, key=key)][: len(numbers(opened))]
    assert len(numbers(opened)) >= 9


def test_only_units_with_the_properties_asked_for_are_shown(opened, found):
    units = found.layers[1].units
    at_layer(opened, 1)
    assert opened.locator("#unit-count").inner_text() == "19 of 20 units; 1 dead one isn’t shown"
    opened.locator("[data-filter=dead]").click()
    assert numbers(opened) == [unit.index for unit in units if unit.dead] == [4]
    assert opened.locator(".unit-card .never").inner_text().split() == [
        "never",
        "positive",
        "in",
        "12",
        "images",
    ]
    assert opened.locator(".unit-card .picture").count() == 0
    opened.locator("[data-filter=dead]").click()
    opened.locator("[data-filter=selective]").click()
    opened.locator("[data-filter=confirmed]").click()
    trusted = [
        unit.index for unit in units
        if unit.scores and unit.scores.selectivity >= 0.2 and unit.scores.masking_drop > 0
    ]  # fmt: skip
    assert 0 < len(trusted) < 19
    assert numbers(opened) == trusted[: len(numbers(opened))]
    assert len(numbers(opened)) >= min(len(trusted), 9)
    assert opened.locator("#tab-1 .found").inner_text() == f"{len(trusted)} found"


def test_units_are_found_by_number_and_by_the_names_of_their_images(opened, found):
    at_layer(opened, 1).locator("#unit-search").fill("7")
    until(opened, "document.querySelectorAll('.slot').length === 1")
    assert numbers(opened) == [7]
    opened.locator("#unit-search").fill("PLAIN 02")
    units = found.layers[1].units
    expected = [u.index for u in units if any("plain 02" in example.name for example in u.examples)]
    assert 0 < len(expected) < 19
    opened.wait_for_timeout(300)
    assert numbers(opened) == expected[: len(numbers(opened))]


@pytest.mark.parametrize("unit", [9, 4])
def test_a_link_opens_a_unit_a_dead_one_too(chromium, found, unit):
    with watched(chromium) as page:
        visit(page, found.folder, f"#gallery/1/{unit}")
        assert page.locator("dialog[open] h3").inner_text() == f"layer 3, unit {unit}"
        page.keyboard.press("Escape")
        assert page.locator("dialog[open]").count() == 0
        page.evaluate("location.hash = '#gallery/2'")
        until(page, "document.querySelector('#tab-2').ariaSelected === 'true'")
        page.evaluate("location.hash = '#gallery/7/99999'")
        assert page.locator("#tab-2").get_attribute("aria-selected") == "true"
        assert page.seen["errors"] == []


def test_everything_can_be_done_with_the_keyboard(opened):
    opened.keyboard.press("/")
    assert opened.evaluate("document.activeElement.id") == "unit-search"
    opened.locator("[role=tab][tabindex='0']").focus()
    opened.keyboard.press("Home")
    opened.keyboard.press("ArrowDown")
    assert opened.evaluate("document.activeElement.id") == "tab-1"
    opened.locator(".unit-card[tabindex='0']").focus()
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press("ArrowDown")
    opened.keyboard.press("End")
    focused = "document.activeElement.querySelector('[data-gallery$=\".index\"]')?.textContent"
    assert opened.evaluate(focused) == "19"
    opened.keyboard.press("Enter")
    assert opened.locator("dialog[open] h3").inner_text() == "layer 3, unit 19"
    opened.keyboard.press("ArrowLeft")
    assert opened.locator("dialog[open] h3").inner_text() == "layer 3, unit 18"
    assert opened.url.endswith("#gallery/1/18")
    opened.keyboard.press("Escape")
    until(opened, f"{focused} === '18'")  # the dialog gives the focus back when it has closed


def test_names_with_mark_up_do_nothing(opened):
    at_layer(opened, 1).locator(".unit-card").first.click()
    assert HOSTILE in opened.locator("#unit-detail").inner_text()
    opened.wait_for_timeout(100)
    assert opened.evaluate("document.querySelectorAll('img, [onerror]').length") == 0


def test_a_file_of_pictures_that_is_gone_is_named(chromium, found, tmp_path):
    import shutil

    folder = shutil.copytree(found.folder, tmp_path / "copy")
    name = found.layers[0].sprite.projections[0]
    (folder / name).unlink()
    with watched(chromium) as page:
        visit(page, folder, "#gallery/0")
        until(page, "document.querySelector('.picture.lost') !== null")
        assert page.locator(".picture.lost").first.inner_text() == f"The file {name} isn’t there."


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 820, 1400])
def test_it_is_never_wider_than_the_window(opened, width, scheme):
    opened.emulate_media(color_scheme=scheme)
    opened.set_viewport_size({"width": width, "height": 900})
    opened.wait_for_timeout(100)
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    opened.locator(".unit-card").first.click()
    assert opened.evaluate(
        "document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth"
    )


def test_a_layer_without_projections_says_why(chromium, found, tmp_path):
    layer = found.layers[1]
    bare = replace(
        layer, sprite=replace(layer.sprite, projections=()), projected=f"no rule for {HOSTILE}", census=None
    )
    write_index(replace(found, layers=(bare,)), tmp_path)
    with watched(chromium) as page:
        visit(page, tmp_path)
        assert f"No projections. no rule for {HOSTILE}" in page.locator("#layer-facts").inner_text()
        assert page.locator(".picture.none").first.inner_text() == "no projections"


def test_the_page_is_the_same_each_time_and_names_no_place(found, tmp_path):
    assert gallery_html(found) == gallery_html(replace(found, folder=str(tmp_path)))
    assert found.folder not in gallery_html(found)
