"""``docs/flops.md`` names every operator that has a rule, and no other; its counts are those of the table."""

import re
from pathlib import Path

import torch

from convscope.cost import Gradients, cost
from convscope.cost.arithmetic import elementwise, flops

PAGE = Path(__file__).parents[3] / "docs" / "flops.md"
ROW = re.compile(r"^\| (\d+) \| (`.*) \|$", re.MULTILINE)


def _named(text):
    return set(re.findall(r"`(\w+)`", text))


def _section(start, end):
    return PAGE.read_text().partition(start)[2].partition(end)[0]


def test_every_operator_with_a_rule_is_named_and_nothing_else():
    products = _section("\n## Multiply–accumulates", "\n## Elementwise")
    operations = _section("\n## Elementwise operations", "\n### Zero")
    zero = _section("\n### Zero", "\n## A rule of your own")
    assert _named(products) == set(flops._MACS._rules) | set(flops._BACKWARD._rules)
    assert _named(operations) == set(elementwise._OPERATIONS._rules)
    assert _named(zero) == elementwise._NO_WORK | elementwise._MOVES


def test_counts_per_element_are_those_that_the_table_has():
    documented = {int(count): _named(names) for count, names in ROW.findall(PAGE.read_text())}
    assert documented == {count: set(names.split()) for count, names in elementwise._PER_RESULT.items()}


def test_the_pages_example_runs_and_is_followed(monkeypatch):
    for table in (flops._MACS, flops._BACKWARD, elementwise._OPERATIONS):
        monkeypatch.setattr(table, "_rules", dict(table._rules))
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names = {}
    exec(example, names)
    assert flops._MACS.find("mylib_correlate") is names["correlate"]
    assert flops.Gradients is Gradients

    names["elementwise_rule"]("i0")(names["clip"])

    class Bessel(torch.nn.Module):
        def forward(self, x):
            return torch.special.i0(x)

    assert cost(Bessel(), (3, 4), plan=None).totals.elementwise_ops == 2 * 12
