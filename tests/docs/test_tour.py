"""The guided tour: every command prints what its page says, and every example runs."""

import doctest
import shutil
from pathlib import Path

import pytest

from convscope.cli.main import main
from docs.told import commands_with_output, first_line_missed

TOUR = Path(__file__).parents[2] / "docs" / "tour"
PAGES = sorted(TOUR.glob("*.md"))
SLOW = {"--data"}
"""Flags of commands that take more than a few seconds."""
TOLD = [
    pytest.param(
        words,
        told,
        id=f"{page.stem}: {' '.join(words)}",
        marks=[pytest.mark.slow] if SLOW & set(words) else [],
    )
    for page in PAGES
    for words, told in commands_with_output(page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("words", "told"), TOLD)
def test_a_command_prints_what_its_page_says(words, told, tmp_path, monkeypatch, capsys):
    shutil.copy(TOUR / "networks.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    main(list(words))
    printed = capsys.readouterr().out
    missed = first_line_missed(told, printed)
    assert missed is None, f"{missed}\nisn't in its place in\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page):
    found = doctest.testfile(str(page), module_relative=False)
    assert found.attempted
    assert found.failed == 0


def test_a_page_with_another_output_is_found():
    printed = "one 1.25\ntwo 2   \nthree\n"
    assert first_line_missed("one 1.…\n…\nthree\n", printed) is None
    assert first_line_missed("one 1.25\ntwo 2\n…\n", printed) is None
    assert first_line_missed("one 1.3…\n…\n", printed) == "one 1.3…"
    assert first_line_missed("…\nthree\ntwo 2\n", printed) == "two 2"
    assert first_line_missed("one…\n", printed).startswith("the end")


def test_every_block_of_output_belongs_to_a_command():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert text.count("\n```bash\n") == len(commands_with_output(text)), page.name
    assert len(TOLD) > 10
