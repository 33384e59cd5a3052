"""``docs/folding.md``: every example runs, every formula is tested, every link leads somewhere."""

import doctest
import re
from pathlib import Path

from docs import test_fold_formulas, test_fold_passing  # noqa: F401  (they quote the formulas)
from docs.fold_quoted import QUOTED

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "folding.md").read_text()


def test_every_formula_of_the_page_is_quoted():
    blocks = re.findall(r"```math\n(.*?) \\tag\{(\d+)\}\n```", PAGE, re.DOTALL)
    assert len(blocks) == PAGE.count("```math")
    assert {int(number): " ".join(text.split()) for text, number in blocks} == QUOTED


def test_every_example_of_the_page_runs():
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    test = doctest.DocTestParser().get_doctest("\n".join(examples), {}, "folding.md", None, 0)
    assert len(test.examples) > 50
    told = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    assert runner.run(test, out=told.append).failed == 0, "".join(told)


def test_inline_formulas_survive_markdown():
    text = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    inline = re.findall(r"\$([^$\n]+)\$", text)
    assert len(inline) > 60
    assert text.count("$") == 2 * len(inline)
    assert not [formula for formula in inline if re.search(r"\\[^a-zA-Z]", formula)]


def test_links_within_the_page_and_to_files_lead_somewhere():
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)):
        path, _, anchor = target.partition("#")
        if path.startswith("https://"):
            continue
        if path:
            assert (ROOT / "docs" / path).exists(), target
        else:
            assert anchor in anchors, target


def test_every_folder_of_the_room_is_in_the_architecture_and_the_other_way_round():
    text = (ROOT / "docs" / "architecture.md").read_text()
    lines = re.search(r"  fold/ .*\n((?:    .*\n)+)", text).group(1)
    told = set(re.findall(r"^    (\w+)/", lines, re.MULTILINE))
    folders = (ROOT / "src/convscope/fold").glob("*/")
    assert told == {path.name for path in folders if path.is_dir() and path.name != "__pycache__"}
