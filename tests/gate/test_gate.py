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


class TwoOutputs(nn.Module):
    """A classifier whose second output could be the scores as well."""

    def __init__(self):
        super().__init__()
        self.body, self.size = _network(), nn.Linear(5, 7)

    def forward(self, x):
        scores = self.body(x)
        return scores, self.size(scores)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        x = self.conv(x)
        return x.relu() if x.mean() > 0 else x


def _labelled():
    torch.manual_seed(1)
    return [(torch.randn(16, *SHAPE[1:]), torch.randint(5, (16,))) for _ in range(3)]


def _trained(model):
    """With statistics of the data that it is checked on."""
    model.train()
    for _ in range(60):
        for images, _ in _labelled():
            model(images)
    return model.eval()


def _by_first(outputs, labels):
    return nn.functional.cross_entropy(outputs[0], labels)


def test_a_gap_that_cant_be_measured_is_no_silent_pass():
    model = _trained(TwoOutputs())
    with pytest.raises(ConvscopeError, match=r"couldn't be measured \(.*outputs of shapes.*unmeasured-gap"):
        cs.gate(model, SHAPE, fault="error", data=_labelled())
    allowed = cs.gate(model, SHAPE, fault="error", data=_labelled(), allowed=("unmeasured-gap",))
    (check,) = allowed.checks
    assert check.passed
    assert "but for" not in check.method
    assert [each.what for each in check.unchecked if each.what == "gap"] == ["gap"]
    for said in (str(allowed), allowed.to_junit(), allowed.to_json()):
        assert "could be the logits" in " ".join(said.split())
    (check,) = cs.gate(model, SHAPE, fault="error", data=_labelled(), loss=_by_first).checks
    assert check.passed
    assert not [each for each in check.unchecked if each.what == "gap"]


def test_unlabelled_data_without_a_finding_is_no_silent_pass():
    images = [images for images, _ in _labelled()]
    with pytest.raises(ConvscopeError, match="no labels"):
        cs.gate(_trained(_network()), SHAPE, fault="error", data=images)


def test_a_finding_fails_whether_or_not_the_gap_was_measured():
    model = _trained(TwoOutputs())
    model.body[1].running_var.fill_(900.0)
    assert not cs.gate(model, SHAPE, fault="advice", data=_labelled()).passed


@pytest.mark.parametrize("norm", [nn.Identity, nn.BatchNorm2d])
def test_without_a_batch_norm_that_trains_there_is_no_gap_to_measure(norm):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), norm(8) if norm is nn.BatchNorm2d else norm())
    if norm is nn.BatchNorm2d:
        cs.norm.freeze(_trained(model))
        model.train()  # frozen layers stay as they are
    assert cs.gate(model, SHAPE, fault="error", data=[images for images, _ in _labelled()]).passed


def test_what_wasnt_checked_is_told_without_data_too():
    found = cs.gate(_network().eval(), SHAPE, fault="error")
    (check,) = found.checks
    assert check.unchecked == cs.checkup(_network().eval(), SHAPE).unchecked != ()
    assert "not checked: statistics, gap, biases and batches: no data was given" in str(found)


def test_what_a_recording_assumed_is_told():
    found = cs.gate(Branching(), SHAPE, flops="1G", memory="9GiB", params="1G", plan=None)
    assumed = cs.record(Branching(), SHAPE, plan=None).assumptions
    assert assumed
    assert [check.assumptions for check in found.checks] == [assumed, (), assumed]
    assert str(found).count(f"assumed: {assumed[0]}") == 1
    assert found.to_junit().count(f"assumed: {assumed[0]}") == 2


def test_a_loader_as_inputs_is_told_where_it_belongs():
    loader = torch.utils.data.DataLoader(_labelled())
    with pytest.raises(ConvscopeError, match=r"inputs of type DataLoader.*data="):
        cs.gate(_network(), loader, fault="error")


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
        ({"flops": "5 apples"}, r"flops \(--max-flops\) '5 apples'; expected a positive number"),
        ({"memory": "24"}, r"memory \(--max-memory\) '24'"),
        ({"unfolded": -1}, "unfolded=-1; expected a whole number from 0"),
        ({"fault": "bad"}, "fault='bad'; expected one of error, warning, advice"),
        ({"fault": "error", "allowed": ("stale",)}, "unknown fault 'stale'"),
        ({"fault": "error", "allowed": ("stale-statistic",)}, r"did you mean .*'stale-statistics'"),
        ({"params": 5, "allowed": ("stale-statistics",)}, "without a limit on faults"),
    ],
)
def test_bad_limits_are_refused(limits, message):
    with pytest.raises(ConvscopeError, match=message):
        cs.gate(_network(), SHAPE, **limits)
