"""Every command of the documentation is one, and what the first pages quote is what their commands print."""

import doctest
import re
import shlex

import pytest

from convscope.cli.main import COMMANDS, app, main
from docs.commands import ALL, FIRST, PAGES, commands, is_mention, words_of
from docs.told import commands_with_output, first_line_missed, shortened


@pytest.mark.parametrize(("page", "line"), ALL)
def test_it_is_a_command(page, line):
    words = words_of(line)
    if "…" not in words:
        app.parse_args(shlex.split(words), exit_on_error=False, print_error=False)


def test_a_command_that_is_only_named_is_one():
    named = {words_of(line) for page in PAGES for line in commands(page) if is_mention(words_of(line))}
    assert named <= set(COMMANDS)
    assert {"cost", "checkup", "fold", "train", "report"} <= named


def test_there_are_commands_and_none_is_in_a_block_that_isnt_read():
    assert len(ALL) > 90
    for page in PAGES:
        blocks = re.findall(
            r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
        others = [
            text for language, text in blocks if language not in ("bash", "yaml")
        ]  # test_gate.py runs YAML's
        assert not [text for text in others if re.search(r"^convscope [a-z]", text, re.MULTILINE)], page.name


def test_the_examples_of_the_first_page_run():
    found = doctest.testfile(str(FIRST[0]), module_relative=False)
    assert (found.failed, found.attempted) == (0, 5)


COMPUTED = [
    pytest.param(words, told, id=" ".join(words))
    for page in FIRST
    for words, told in commands_with_output(page.read_text(encoding="utf-8"))
    if words[0] in ("cost", "gate", "max-batch")
]
"""What the first pages quote of commands that train nothing, and so print the same everywhere."""


@pytest.mark.parametrize(("words", "told"), COMPUTED)
def test_figures_of_the_first_pages_are_what_the_command_prints(words, told, capsys):
    main(list(words))
    assert first_line_missed(shortened(told), capsys.readouterr().out) is None


def test_there_are_such_figures():
    assert len(COMPUTED) == 5
