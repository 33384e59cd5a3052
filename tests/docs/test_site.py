"""The pages of the site: links lead to pages or pictures that are there, and nothing comes from elsewhere."""

import re
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

import formulas
import site_pages

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    site_pages.stage(folder)
    return folder


def test_links_lead_to_pages_that_are_there(staged):
    pages = list((staged / "docs").rglob("*.md"))
    assert len(pages) > 60
    for page in pages:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in LINK.findall(text):
            path = target.partition("#")[0]
            if path and "://" not in target:
                assert (page.parent / path).is_file(), f"{page.name}: {target}"


def test_every_page_of_the_navigation_is_there_and_every_page_is_in_it_or_listed(staged):
    settings = tomllib.loads((staged / "zensical.toml").read_text())["project"]
    assert settings["theme"]["font"] is False
    shown = [page for part in settings["nav"] for pages in part.values() for page in pages]
    assert all((staged / "docs" / page).is_file() for page in shown)
    top = {page.name for page in (staged / "docs").glob("*.md")}
    assert top <= set(shown), "a page that no reader finds"


def test_every_public_room_has_a_page_of_reference():
    import convscope

    rooms = {name for name in convscope._ROOMS if (Path(convscope.__file__).parent / name).is_dir()}
    assert rooms == set(site_pages.ROOMS)


def test_formulas_are_drawn_without_a_script(staged):
    repository = (Path(site_pages.ROOT) / "docs" / "normalisation.md").read_text(encoding="utf-8")
    page = (staged / "docs" / "normalisation.md").read_text(encoding="utf-8")
    numbers = re.findall(r"\\tag\{(\d+)\}", repository)
    assert re.findall(r">\((\d+)\)</span><math ", page) == numbers
    assert "```math" not in page
    assert "$" not in re.sub(r"```.*?```|`[^`]*`", "", page, flags=re.DOTALL)
    assert not re.search(r"^<math ", page, re.MULTILINE), "Markdown would take it for a block"
    for block in re.findall(r"<math .*?</math>", page):
        ElementTree.fromstring(block)


def test_code_keeps_its_dollars():
    page = "`$a$` and\n\n```bash\necho $b $c\n```\n"
    assert formulas.with_formulas(page) == page
