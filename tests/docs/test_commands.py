"""Every command of the documentation is one, and those of the first pages run, in the order of reading."""

import doctest
import re
import shlex
from pathlib import Path

import pytest
from skimage import data, io

from convscope.cli.main import COMMANDS, app, main
from docs.told import commands_with_output, first_line_missed

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FIRST = [ROOT / "docs" / "start.md", *sorted((ROOT / "docs" / "questions").glob("*.md"))]
ELSEWHERE = {
    "report zfnet --data photos --norm batch --out report": "make demo",
    "compare precise-bn": "docs/experiments",
    "gallery-compare before after": "tests/sight",
}
"""Commands of the first pages that run in other places, and where."""


def _commands(page):
    """The words after ``convscope`` of each command in a page's blocks and between its backticks."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line.strip() for block in blocks for line in re.sub(r"\\\n\s*", " ", block).splitlines()]
    between = [words.replace("\n", " ") for words in re.findall(r"(?<!`)`(convscope [^`]+)`(?!`)", text)]
    found = [line.partition("convscope ")[2].partition("  #")[0] for line in lines if "convscope " in line]
    return [*found, *(words.removeprefix("convscope ") for words in between)]


def _is_pattern(words):
    """Whether the reader is to put something there: NETWORK, MODEL, FAULT."""
    return re.search(r"\b[A-Z]{2,}\b|…|\.\.\.", words) is not None


ALL = sorted(
    {
        (page.relative_to(ROOT).as_posix(), words)
        for page in PAGES
        for words in _commands(page)
        if not _is_pattern(words)
    }
)


@pytest.mark.parametrize(("page", "words"), ALL)
def test_it_is_a_command(page, words):
    if " " not in words:
        assert words in COMMANDS
        return
    app.parse_args(shlex.split(words), exit_on_error=False, print_error=False)


def test_there_are_commands():
    assert len(ALL) > 60


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_of_the_first_pages_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    io.imsave(tmp_path / "cat.jpg", data.chelsea())
    ran = set()
    for page in FIRST:
        for words in _commands(page):
            if " " not in words or words in ELSEWHERE or words in ran or _is_pattern(words):
                continue
            ran.add(words)
            try:
                main(shlex.split(words))
            except SystemExit as ended:
                said = capsys.readouterr().err
                pytest.fail(f"{page.name}: convscope {words}: exit code {ended.code}, {said}")
    assert len(ran) > 12
    assert {"run", "gallery", "folded.onnx"} <= {file.name for file in tmp_path.iterdir()}


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
    lines = [line for line in told.splitlines() if line.strip()]
    shortened = "…\n" + "".join(f"{line}\n…\n" for line in lines)
    assert first_line_missed(shortened, capsys.readouterr().out) is None


def test_there_are_such_figures():
    assert len(COMPUTED) == 5
