"""Planted settings, at static depth; and the same network without them."""

import copy

import pytest
import torch
from torch import nn

import convscope as cs
from checkup.grown import Small, evidence, faults, grow, loader
from convscope import checkup
from convscope.checkup.judging.faults.settings import static_dummy_forwards
from convscope.checkup.measuring.observe import observe_data, observe_modules
from convscope.checkup.measuring.subject import Subject
from convscope.checkup.plan import CheckupPlan

GROWN = grow(Small())


@pytest.fixture
def model():
    return copy.deepcopy(GROWN).train()


def _the(found, name):
    (finding,) = (finding for finding in found.findings if finding.fault == name)
    return finding


def test_the_healthy_twin(model):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    assert faults(checkup(model, optimizer=optimizer)) == []
    assert faults(checkup(model, loader(), optimizer=optimizer)) == []


@pytest.mark.parametrize(("momentum", "right"), [(0.9, "0.1"), (0.99, "0.01"), (1.0, "0.1")])
def test_momentum_of_the_other_convention(model, momentum, right):
    model.bn2.momentum = momentum
    found = checkup(model)
    assert faults(found) == [("momentum-convention", "bn2#1")]
    assert f"momentum={right}," in found.findings[0].remedy
    assert evidence(found.findings[0], "batches averaged") == pytest.approx((2 - momentum) / momentum)


@pytest.mark.parametrize("momentum", [0.1, 0.01, 0.4, None])
def test_healthy_momenta(model, momentum):
    model.bn2.momentum = momentum
    model.bn2.num_batches_tracked.fill_(10_000)
    assert faults(checkup(model)) == []


def test_momentum_zero_is_no_freezing(model):
    model.bn1.momentum = 0.0
    assert faults(checkup(model)) == [("statistics-never-move", "bn1#1")]
    model.bn1.eval()
    assert faults(checkup(model)) == []


def test_statistics_toggled_off_are_no_freezing(model):
    model.bn1.track_running_stats = False
    finding = _the(checkup(model), "statistics-never-move")
    assert (finding.severity, finding.address) == ("warning", "bn1#1")
    # Why: training normalises by the batch and moves nothing; evaluation uses what stands still.
    x, before = torch.randn(4, 8, 5, 5), model.bn1.running_mean.clone()
    by_batch, by_averages = model.bn1(x), model.bn1.eval()(x)
    assert torch.equal(model.bn1.running_mean, before)
    assert not torch.allclose(by_batch, by_averages, atol=0.1)
    assert faults(checkup(model)) == []  # frozen by its mode
    model.bn1.train()
    assert faults(checkup(model.eval())) == []  # how it trains isn't known
    cs.norm.freeze(model.train(), only="bn1")
    assert faults(checkup(model)) == []
    assert 'only="bn1"' in finding.remedy


def test_frozen_parameters_with_moving_statistics(model):
    model.bn1.requires_grad_(False)
    assert faults(checkup(model)) == [("frozen-but-tracking", "bn1#1")]
    model.bn1.eval()  # frozen for good
    assert faults(checkup(model)) == []
    model.bn1.train()
    assert faults(checkup(model.eval())) == []  # how it trains isn't known


def test_an_optimizer_of_other_parameters(model):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model.bn2 = copy.deepcopy(model.bn2)
    found = checkup(model, optimizer=optimizer)
    assert faults(found) == [("foreign-optimizer", "bn2#1")]
    assert "bn2.weight, bn2.bias" in found.findings[0].why
    assert faults(checkup(model, optimizer=torch.optim.SGD(model.parameters(), 0.1))) == []


def test_an_optimizer_of_a_part_of_the_network_is_meant(model):
    assert faults(checkup(model, optimizer=torch.optim.SGD(model.head.parameters(), 0.1))) == []


def test_decayed_gains_are_advice(model):
    found = checkup(model, optimizer=torch.optim.AdamW(model.parameters(), weight_decay=0.05))
    assert faults(found) == [("decayed-gains", "bn1#1")]
    assert found.findings[0].severity == "advice"
    assert (evidence(found.findings[0], "layers"), evidence(found.findings[0], "weight decay")) == (3, 0.05)
    gains = [p for n, p in model.named_parameters() if "bn" in n]
    rest = [p for n, p in model.named_parameters() if "bn" not in n]
    groups = [{"params": gains, "weight_decay": 0.0}, {"params": rest}]
    assert faults(checkup(model, optimizer=torch.optim.AdamW(groups, weight_decay=0.05))) == []


def test_without_affine_or_statistics():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False, track_running_stats=False))
    assert faults(checkup(net)) == [("missing-statistics", "1#1")]
    assert checkup(net).layers[0].gamma_range is None


def _dummy(model, optimizer, data=None):
    subject = Subject(model, None, optimizer, None, CheckupPlan())
    observation = observe_modules(subject, None) if data is None else observe_data(subject, data)
    return list(static_dummy_forwards(observation))


@pytest.mark.parametrize("batches", [1, 3, 43, 44, 200])
def test_statistics_that_moved_before_the_first_step(batches):
    model = Small()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0)
    assert _dummy(model, optimizer) == []
    with torch.no_grad():
        for _ in range(batches):
            model(torch.zeros(2, 3, 11, 9))
    found = _dummy(model, optimizer)
    assert bool(found) is (batches < 44)  # 0.9^44 is below 1 %
    for finding in found:
        assert (finding.fault, finding.severity, finding.address) == ("dummy-forwards", "warning", "bn1#1")
        assert evidence(finding, "their weight in the averages") == pytest.approx(1 - 0.9**batches)
        assert evidence(finding, "batches tracked") == batches
        assert evidence(finding, "layers") == 3
    assert _dummy(model, None) == []
    assert _dummy(model, torch.optim.SGD(model.parameters(), 0.1)) == []  # it can't tell
    for name in ("bn1", "bn2", "bn3"):
        model.get_submodule(name).reset_running_stats()
    assert _dummy(model, optimizer) == []


def test_training_itself_is_no_dummy_forward():
    model = Small()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 3, 11, 9)).sum().backward()
    optimizer.step()
    assert _dummy(model, optimizer) == []


def test_few_batches_that_were_right_on_data_are_fine():
    model = grow(Small())
    optimizer = torch.optim.AdamW(model.parameters())
    for name in ("bn1", "bn2", "bn3"):
        model.get_submodule(name).num_batches_tracked.fill_(30)
    assert len(_dummy(model, optimizer)) == 1
    assert _dummy(model, optimizer, loader()) == []


def test_momentum_one_half_says_nothing_of_its_convention(model):
    model.bn2.momentum = 0.5
    (finding,) = checkup(model).findings
    assert "set momentum=0.1, then" in finding.remedy


@pytest.mark.parametrize("momentum", [2.0, 1.01, -0.1])
def test_a_momentum_that_averages_nothing(model, momentum):
    model.bn2.momentum = momentum
    finding = _the(checkup(model), "momentum-convention")
    assert (finding.severity, finding.address) == ("error", "bn2#1")
    assert "isn't between 0 and 1" in finding.why
    assert evidence(finding, "weight of the old value") == pytest.approx(1 - momentum)


def test_the_call_that_freezes_a_model_that_is_one_layer():
    layer = nn.BatchNorm2d(3, momentum=0.0).train()
    finding = _the(checkup(layer), "statistics-never-move")
    call = finding.remedy.split(" to freeze it")[0]
    assert call == "cs.norm.freeze(model)"
    cs.norm.freeze(layer)
    x = torch.randn(8, 3, 4, 4) + 5
    assert torch.equal(layer.train()(x), layer.eval()(x))  # training does what test time does


def test_an_average_does_not_learn_by_an_optimizer_of_its_own(model):
    averaged = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    assert "foreign-optimizer" not in [fault for fault, _ in faults(checkup(averaged, optimizer=optimizer))]
