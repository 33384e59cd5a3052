"""The pages of the site: links lead to pages or pictures that are there, and nothing comes from elsewhere."""

import re
import tomllib
from pathlib import Path

import pytest

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
