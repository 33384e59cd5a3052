"""The examples of docs/sight.md run."""

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "sight.md"


def test_every_example_of_the_page_runs():
    found = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted >= 12
    assert found.failed == 0
