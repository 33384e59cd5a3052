"""Every fault has a page, and what pages tell to do works."""

import re
import textwrap
from pathlib import Path

import pytest
import torch
from bench.checkup_suite import planted_processes
from bench.checkup_suite.networks import grown, loader
from bench.checkup_suite.planted_all import CASES

from convscope.checkup import fault_names
from convscope.checkup.explain import page_names, page_of
from convscope.core.errors import ConvscopeError

SECTIONS = [
    "What it is",
    "How it shows",
    "How it is measured",
    "When it isn't a fault",
    "How to mend it",
    "Sources",
]
BLOCK = re.compile(r"```python( run)?\n(.*?)```", re.DOTALL)


def test_every_fault_has_a_page_and_every_page_a_fault():
    assert set(page_names()) == set(fault_names())


@pytest.mark.parametrize("fault", page_names())
def test_form(fault):
    page = page_of(fault)
    assert page.startswith(f"# {fault}: ")
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == SECTIONS
    assert 25 <= page.count("\n") <= 80
    assert max(map(len, page.splitlines())) <= 110
    for section in page.split("\n## ")[1:]:
        assert len(section.partition("\n")[2].split()) >= 1
    assert BLOCK.search(page), "a remedy in code"


@pytest.mark.parametrize("fault", page_names())
def test_code(fault):
    for number, (runs, code) in enumerate(BLOCK.findall(page_of(fault))):
        compiled = compile(textwrap.dedent(code), f"{fault}.md:{number}", "exec")
        if runs:
            torch.manual_seed(0)
            given = {
                "model": grown("plain"),
                "loader": loader(),
                "held_out": loader(seed=5),
                "dataset": loader(129).dataset,
            }
            exec(compiled, given)


def test_unknown_pages_are_said_to_be_unknown():
    with pytest.raises(ConvscopeError, match="did you mean 'micro-batch'"):
        page_of("micro-batches")


def test_code_of_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "checkup.md").read_text()
    blocks = BLOCK.findall(text)
    assert len(blocks) >= 4
    for number, (_, code) in enumerate(blocks):
        compile(code, f"checkup.md:{number}", "exec")


def test_the_documentation_lists_every_page_under_its_title():
    text = (Path(__file__).parents[2] / "docs" / "checkup.md").read_text()
    listed = re.findall(
        r"^\| \[([a-z-]+)\]\(../src/convscope/checkup/pages/\1.md\) \| (\S+) \| (.*) \|$", text, re.M
    )
    assert sorted(fault for fault, _, _ in listed) == sorted(page_names())
    numbers = {case.fault: str(case.number or "–") for case in (*CASES, *planted_processes.CASES)}
    for fault, number, title in listed:
        assert page_of(fault).startswith(f"# {fault}: {title}\n")
        assert number == numbers[fault]
