"""The pages for those who carry on the code: every example runs, and what it registers goes with it."""

import doctest
import re
from pathlib import Path

import pytest

from convscope.checkup.judging.faults import registry
from convscope.cost.arithmetic import elementwise, flops
from convscope.fold.gauge import reading
from convscope.sight.projecting import registering

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "extending").glob("*.md"))
TABLES = (
    elementwise._OPERATIONS._rules, flops._MACS._rules, flops._BACKWARD._rules,
    reading.RULES, registry._RULES, registering.GATES, registering.LINEAR,
)  # fmt: skip
WITHIN = re.compile(r"`((?:cost|fold|checkup|sight|tests|bench)/[-\w./]+)`")


@pytest.fixture(autouse=True)
def tables_as_they_were():
    """Modules hold these tables themselves, so that they are put right in place."""
    before = [dict(table) for table in TABLES]
    yield
    for table, held in zip(TABLES, before):
        table.clear()
        table.update(held)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page):
    flags = doctest.ELLIPSIS
    found = doctest.testfile(str(page), module_relative=False, optionflags=flags)
    assert found.attempted > 8
    assert found.failed == 0


def test_there_is_a_page_for_each_kind_of_rule():
    assert {page.stem for page in PAGES} == {"flop-rule", "fold-rule", "fault", "backward-rule"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_a_page_names_are_there(page):
    named = WITHIN.findall(page.read_text(encoding="utf-8").replace("NAME", "dead-gamma"))
    assert len(named) > 3
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "src" / "convscope" / name).exists(), name
