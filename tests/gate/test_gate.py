"""Limits held against networks whose numbers are known by hand."""

import copy

import pytest
import torch
from torch import nn

import convscope as cs
from convscope.core.errors import ConvscopeError
from convscope.gate import Limits

SHAPE = (2, 3, 10, 12)
# By hand: 8·3·3·3 weights, 8 biases, 2·8 of the norm, 5·8·2 + 5 of the head.
PARAMS = 216 + 8 + 16 + 5 * 8 + 5
# 8·10 positions of 27 products into 8 channels, and 8·5 in the head; two images.
MACS = 2 * (80 * 27 * 8 + 8 * 5)


def _network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


def _found(limits, **more):
    (check,) = cs.gate(_network(), SHAPE, limits, **more).checks
    return check


@pytest.mark.parametrize(("name", "number"), [("params", PARAMS), ("macs", MACS), ("flops", 2 * MACS)])
def test_a_number_at_its_limit_passes_and_one_above_fails(name, number):
    for limit, passes in ((number, True), (number - 1, False), (str(number), True)):
        check = _found(Limits(**{name: limit}))
        assert (check.name, check.found, check.limit) == (name, number, int(limit))
        assert check.passed is passes
    assert check.details[0].startswith("0#1: ")


def test_memory_is_that_of_the_safe_answer_of_the_largest_batch():
    needed = _found(Limits(memory="1TiB")).found
    for memory, fits in ((needed, True), (needed - 2**22, False)):
        assert _found(Limits(memory=memory)).passed is fits
    model, shape = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU()), (16, 3, 64, 64)
    (check,) = cs.gate(model, shape, memory="1TiB").checks
    safe = cs.largest_batch(model, shape, check.found).safe.batch
    assert safe >= 16 > cs.largest_batch(model, shape, check.found - 2**22).safe.batch


def test_on_the_cpu_memory_is_the_sum_of_the_tensors():
    check = _found(Limits(memory="1GiB"), device="cpu", plan=None)
    forecast = cs.cost(_network(), SHAPE, plan=None, device="cpu").forecast
    assert check.found == forecast.allocated_peak_bytes


def test_findings_count_from_a_severity_on():
    assert not _found(Limits(fault="warning")).passed  # statistics that nothing was learnt into
    assert _found(Limits(fault="error")).passed
    check = _found(Limits(fault="warning", allowed=("young-statistics",)))
    assert (check.passed, check.found, check.limit) == (True, 0, 0)
    assert "but for young-statistics" in check.method


def test_data_is_checked_too():
    model = _network().eval()
    model[1].running_var.fill_(900.0)
    model[1].num_batches_tracked.fill_(1000)
    images = torch.randn(32, *SHAPE[1:])
    (alone,) = cs.gate(model, SHAPE, fault="error").checks
    (found,) = cs.gate(model, SHAPE, fault="error", data=images).checks
    assert alone.passed
    assert not found.passed
    assert any("stale-statistics" in line for line in found.details)


def test_batch_norms_that_dont_fold_are_counted_and_named():
    assert _found(Limits(unfolded=0)).passed
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.BatchNorm2d(8), nn.Tanh())
    (check,) = cs.gate(model, SHAPE, unfolded=0).checks
    assert (check.passed, check.found) == (False, 1)
    assert check.details[0].startswith("2#1 is kept: ")
    assert cs.gate(model, SHAPE, unfolded=1).passed


def test_all_limits_are_checked_in_one_order_and_all_must_hold():
    found = cs.gate(_network(), SHAPE, unfolded=0, fault="error", flops=2 * MACS, memory="9GiB", params=1)
    assert [check.name for check in found.checks] == ["memory", "params", "flops", "faults", "unfolded"]
    assert [check.passed for check in found.checks] == [True, False, True, True, True]
    assert not found.passed
    assert [check.name for check in found.failed] == ["params"]
    assert found.to_dict()["checks"][1]["found"] == PARAMS


def test_the_model_comes_back_as_it_was():
    model = _network()
    model[1].eval()
    before = copy.deepcopy(model)
    generator = torch.get_rng_state()
    cs.gate(model, SHAPE, memory="9GiB", params=10**9, fault="advice", unfolded=0)
    assert [module.training for module in model.modules()] == [m.training for m in before.modules()]
    for name, tensor in before.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "a gate without limits; expected at least one"),
        ({"parms": 3}, "unknown limit 'parms'; expected some of memory, params"),
        ({"params": 0}, "params=0; expected a whole number from 1"),
        ({"params": 2.5}, "params=2.5; expected a whole number"),
        ({"flops": "5 apples"}, "count '5 apples'; expected a positive number"),
        ({"memory": "24"}, "memory size '24'"),
        ({"unfolded": -1}, "unfolded=-1; expected a whole number from 0"),
        ({"fault": "bad"}, "fault='bad'; expected one of error, warning, advice"),
        ({"fault": "error", "allowed": ("stale",)}, "unknown fault 'stale'"),
        ({"params": 5, "allowed": ("stale-statistics",)}, "without a limit on faults"),
    ],
)
def test_bad_limits_are_refused(limits, message):
    with pytest.raises(ConvscopeError, match=message):
        cs.gate(_network(), SHAPE, **limits)
