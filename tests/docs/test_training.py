"""The examples of docs/training.md run, its commands are ones, and what it lists is all there is."""

import doctest
import re
import shlex
from pathlib import Path

import pytest

from convscope.cli.main import app
from convscope.train.config import RESUMABLE
from convscope.train.recipes import RECIPES

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]


def test_every_example_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted >= 25
    assert found.failed == 0
    names = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE)
    listed = {name.replace("N", "1") for name in names}
    assert {file.name for file in (tmp_path / "run").iterdir()} <= listed


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one(line):
    words = shlex.split(line.partition("convscope ")[2])
    app.parse_args(words, exit_on_error=False, print_error=False)


def test_there_are_commands():
    assert len(COMMANDS) == 6


def test_the_settings_that_may_differ_and_the_recipes_are_all_named():
    page = PAGE.read_text()
    sentence = page.partition(" may differ.")[0].rpartition("\n\n")[2]
    assert set(re.findall(r"`(\w+)`", sentence)) == RESUMABLE
    assert all(f"`{name}`" in page for name in RECIPES)
