"""The page of two galleries in a real browser: matched units side by side, those that changed most first."""

import shutil
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from browser import fetched, launched, until, watched
from convscope.core.errors import ConvscopeError
from convscope.report import write_gallery_comparison
from convscope.report.pages.offline import static_text
from convscope.sight import compare_galleries, gallery
from convscope.sight.comparing.result import Kind

pytestmark = pytest.mark.browser
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A network before and after its third unit dies and its fifth becomes another one."""
    folder = tmp_path_factory.mktemp("two")
    images = torch.tensor(np.random.default_rng(0).random((60, 3, 16, 16), dtype=np.float32))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU())
    before = gallery(net, images, out=folder / f"be#fore {HOSTILE}".replace("/", ""), top=4)
    with torch.no_grad():
        net[0].bias[2] = -100
        net[0].weight[4] = -net[0].weight[4]
    after = gallery(net, images, out=folder / "after", top=4)
    return compare_galleries(before, after)


@pytest.fixture
def opened(chromium, found, tmp_path):
    with watched(chromium, height=2000) as page:
        page.goto(write_gallery_comparison(found, tmp_path / "compare.html").as_uri())
        until(page, "document.querySelector('.picture:not(.none)')?.style.backgroundImage")
        yield page
        assert fetched(page) == []
        assert page.seen["console"] == page.seen["errors"] == page.seen["dialogs"] == []


@pytest.fixture(scope="module")
def chromium():
    with launched() as browser:
        yield browser


def titles(page):
    return page.locator(".unit-card b").all_inner_texts()


def test_units_that_changed_most_come_first(opened, found):
    layer = found.layers[0]
    assert layer.pairs[2].kind == "died"
    assert titles(opened)[0] == "unit 2 died"
    shown = [int(title.split()[1]) for title in titles(opened)]
    changes = [layer.pairs[unit].change for unit in shown]
    assert sorted(shown) == list(range(8))
    assert changes == sorted(changes, reverse=True)
    opened.locator("#unit-order").select_option("channel")
    assert [int(title.split()[1]) for title in titles(opened)] == list(range(8))


def test_pictures_of_both_galleries_are_loaded_a_dead_unit_says_so(opened):
    sources = {url for url in opened.seen["requests"] if url.endswith(".webp")}
    assert any("/be%23fore" in url for url in sources)
    assert any("/after/" in url for url in sources)
    assert opened.locator(".picture.lost").count() == 0
    first = opened.locator(".unit-card").first
    assert first.locator(".half").nth(1).inner_text().split() == ["second", "dead"]


def test_kinds_and_numbers_can_be_asked_for_and_a_pair_opened(opened, found):
    opened.locator("[data-filter=died]").click()
    assert titles(opened) == ["unit 2 died"]
    opened.locator("[data-filter=died]").click()
    opened.locator("#unit-search").fill("6")
    assert [title.split()[1] for title in titles(opened)] == ["6"]
    opened.locator(".unit-card").first.click()
    pair = found.layers[0].pairs[6]
    cells = opened.locator("dialog tr").nth(1).inner_text().split()
    assert cells[0] == "largest"
    assert [float(cell) for cell in cells[-2:]] == pytest.approx(
        [pair.first.maximum, pair.second.maximum], rel=5e-3
    )


def test_each_side_has_its_own_gallery_s_pictures_and_every_kind_a_meaning(opened, found):
    addresses = opened.locator(".slot .picture:not(.none)").evaluate_all(
        """all => all.map((each) => [each.closest('.half').firstChild.textContent,
            decodeURIComponent(each.style.backgroundImage)])"""
    )
    assert len(addresses) > 20
    assert all(("/after/" in address) == (side == "second") for side, address in addresses)
    meanings = static_text("gallery/compare_cards.js").split("};")[0]
    assert all(f"\n  {kind}: " in meanings for kind in get_args(Kind))


def test_names_with_mark_up_do_nothing(opened, found):
    assert HOSTILE.replace("/", "") in opened.locator(".intro").inner_text()
    assert opened.evaluate("document.querySelectorAll('img, [onerror]').length") == 0


def test_galleries_that_are_gone_and_other_endings_are_told(found, tmp_path):
    with pytest.raises(ConvscopeError, match="isn't any more"):
        write_gallery_comparison(
            replace(found, folders=(str(tmp_path / "no"), found.folders[1])), tmp_path / "a.html"
        )
    with pytest.raises(ConvscopeError, match=r"\.html"):
        write_gallery_comparison(found, tmp_path / "a.pdf")
    assert list(tmp_path.iterdir()) == []


def in_new_folders(found, folder):
    """The same comparison of copies of its galleries."""
    copies = [shutil.copytree(each, folder / str(side)) for side, each in enumerate(found.folders)]
    return replace(found, folders=tuple(map(str, copies))), copies


def sides_of(page):
    """Sides of the cards whose pictures are shown, and whose are not, and what stands at the top."""
    until(page, "document.querySelector('.slot:not(.trial) .picture')")
    until(page, "document.querySelector('.picture:not(.none, .lost)')?.style.backgroundImage")
    shown, lost = (
        set(page.locator(f".slot:not(.trial) {kind}").evaluate_all(
            "all => all.map((each) => each.closest('.half').firstChild.textContent)"
        ))
        for kind in (".picture[style*=url]", ".picture.lost")
    )  # fmt: skip
    return shown, lost, page.locator("#folders").inner_text()


@pytest.mark.parametrize("what", ["remade", "gone"])
def test_a_gallery_made_anew_or_gone_is_told_instead_of_wrong_pictures(chromium, found, tmp_path, what):
    found, (_, after) = in_new_folders(found, tmp_path)
    path = write_gallery_comparison(found, tmp_path / "compare.html")
    if what == "gone":
        after.rename(tmp_path / "elsewhere")
    else:
        gallery(nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU()), torch.rand(20, 3, 16, 16), out=after, top=4)
        with pytest.raises(ConvscopeError, match="isn't any more"):
            write_gallery_comparison(found, tmp_path / "again.html")
    with watched(chromium, height=2000) as page:
        page.goto(path.as_uri())
        shown, lost, said = sides_of(page)
        assert (shown, lost) == ({"first"}, {"second"})
        assert said.startswith(
            f"The gallery in {after} has been made anew since this comparison (or isn’t there)"
        )
        assert page.seen["errors"] == []
        assert not any("/1/" in url for url in page.seen["requests"] if url.endswith(".webp"))


def test_as_compared_nothing_is_said_at_the_top(opened):
    assert sides_of(opened) == ({"first", "second"}, set(), "")
    assert opened.evaluate("window.convscopeGallery === undefined && !document.querySelector('head script')")
