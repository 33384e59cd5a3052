"""The most expensive rows of each kind, by hand."""

import pytest
from torch import nn

from convscope.cost import cost


def most(net, shape, plan=...):
    found = cost(net, shape) if plan is ... else cost(net, shape, plan)
    return {each.fault: each for each in found.findings if each.fault.startswith("most-")}


def numbers(finding):
    return {evidence.name: evidence.value for evidence in finding.evidence}


def test_three_rows_with_their_shares():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.Conv2d(4, 2, 1, bias=False),
        nn.Flatten(),
        nn.Linear(32, 5, bias=False),
    )
    found = most(net, (1, 3, 6, 6))
    macs = {"0#1": 16 * 4 * 27, "1#1": 16 * 2 * 4, "3#1": 160}
    params = {"3#1": 160, "0#1": 108, "1#1": 8}
    work = numbers(found["most-forward-flops"])
    assert [work[address] for address in macs] == [2 * number for number in macs.values()]
    assert work["share of 0#1"] == pytest.approx(macs["0#1"] / sum(macs.values()))
    assert work["share of them all"] == 1.0
    held = numbers(found["most-parameters"])
    assert {address: held[address] for address in params} == params
    assert found["most-parameters"].address == "3#1"
    made = numbers(found["most-activations"])
    # Four rows have outputs, of 64, 32, 32 and 5 elements, and the loss 5 and 1.
    assert (made["0#1"], made["1#1"], made["2#1"]) == (64, 32, 32)
    assert made["share of them all"] == pytest.approx(128 / 139)
    assert found["most-activations"].why.startswith("3 of 6 rows have 92.1 % of the activations: 0#1 64 (")


def test_a_single_row_has_not_have():
    found = most(nn.Conv2d(3, 4, 1, bias=False), (1, 3, 2, 2), None)
    # 4 positions, 4 channels, three products each, two FLOPs a product.
    assert found["most-forward-flops"].why == (
        "1 of 1 rows has 100.0 % of the forward FLOPs: self#1 96 (100.0 %)"
    )


def test_kinds_that_a_network_has_nothing_of_are_absent():
    assert set(most(nn.ReLU(), (2, 8), None)) == {"most-activations"}
    inference = most(nn.Conv2d(3, 4, 3), (1, 3, 6, 6), None)
    assert "most-saved-bytes" not in inference
    assert not any("backward" in finding.why for finding in inference.values())
