"""Rules of a user's own: by which names they are found, what they go before, and what a broken one says."""

import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.cost import Gradients, backward_rule, cost, elementwise_rule, macs_rule
from convscope.cost.arithmetic import elementwise, flops
from convscope.cost.arithmetic.rules import RuleTable


@pytest.fixture(autouse=True)
def own_rules(monkeypatch):
    """Rules that a test registers go with it."""
    for table in (flops._MACS, flops._BACKWARD, elementwise._OPERATIONS):
        monkeypatch.setattr(table, "_rules", dict(table._rules))


class Pairs(nn.Module):
    def forward(self, x):
        return torch.cat((x, x), 1).view(-1).relu()


def _elementwise_ops():
    return cost(Pairs(), (3, 4), None).totals.elementwise_ops


@pytest.mark.parametrize(("operator", "more"), [("cat", 700), ("view", 70), ("aten::cat", 7)])
def test_a_rule_goes_before_the_lists_of_operators_without_work(operator, more):
    before = _elementwise_ops()
    elementwise_rule(operator)(lambda _: more)
    assert before == 3 * 8  # the ReLU
    assert _elementwise_ops() == before + more


@pytest.mark.parametrize("name", ["relu", "aten::relu"])
def test_names_as_pytorch_writes_them(name):
    macs_rule(name)(lambda call: 5 * call.num_outputs)
    assert cost(Pairs(), (3, 4), None).totals.macs == 5 * 24


@pytest.mark.parametrize("name", ["own::correlate", "own_correlate"])
def test_names_of_other_libraries(name):
    table = RuleTable(int)
    rule = table.register(name)(lambda _: 1)
    assert table.find("own_correlate") is rule
    assert table.find("correlate") is None


@pytest.mark.parametrize("name", ["", "aten::relu.default", "relu, tanh"])
def test_a_name_that_no_operator_has_is_refused(name):
    with pytest.raises(ConvscopeError, match=r"a rule for operator .*; expected a name such as 'relu'"):
        elementwise_rule(name)


def test_a_rule_that_fails_is_named_with_operator_and_address():
    @elementwise_rule("relu")
    def halves(call):
        return call.inputs[3]

    with pytest.raises(ConvscopeError, match=r"rule 'halves' for operator 'relu', at self#1:relu.1, fails "):
        _elementwise_ops()


@pytest.mark.parametrize("found", [None, 1.5, "7"])
def test_a_rule_that_returns_no_whole_number_is_named(found):
    macs_rule("relu")(lambda _: found)
    with pytest.raises(ConvscopeError, match=r"'relu', at self#1:relu.1, returns .*; expected int"):
        _elementwise_ops()


def test_a_backward_rule_that_returns_no_gradients_is_named():
    backward_rule("threshold_backward")(lambda _: 3)
    with pytest.raises(ConvscopeError, match=r"'threshold_backward', .* returns 3; expected Gradients"):
        cost(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), (3, 4))
    backward_rule("threshold_backward")(lambda _: Gradients(input=11))
    totals = cost(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), (3, 4)).totals
    assert totals.backward_input_flops == 2 * 11
