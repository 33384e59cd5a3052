"""The probe's addresses against the tape's, what it reads and replaces, and what it leaves behind."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import module as nn_module

from cases import CASES, CheckpointedNet, ResidualNet, SharedNet, state_of
from convscope.core.errors import ConvscopeError
from convscope.probe import probing
from convscope.tape import TrainingPlan, record


def _addresses(model, inputs, *, training):
    """The addresses of a real run, forward and, in training, backward."""
    located = []
    with probing(model, training=training) as probe:
        locate = probe.attribution.locate
        probe.attribution.locate = lambda op: located.append(locate(op)) or located[-1]
        with torch.set_grad_enabled(training):
            outputs = model(inputs)
        if training:
            F.cross_entropy(outputs, torch.zeros(len(inputs), dtype=torch.long)).backward()
    return [str(site.address) for site in located if site.phase != "optimizer"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_addresses_are_the_tapes(case):
    inputs = torch.randn(case.shape)
    real = _addresses(case.make(), inputs, training=False)
    assert real == [str(call.address) for call in record(case.make(), inputs).calls]


@pytest.mark.parametrize("make", [SharedNet, CheckpointedNet])
def test_training_addresses_are_the_tapes(make):
    inputs = torch.randn(3, 3, 9, 9)
    tape = record(make(), inputs, TrainingPlan())
    expected = [str(call.address) for call in tape.calls if call.phase != "optimizer"]
    real = _addresses(make(), inputs, training=True)
    # Making the targets of the loss isn't part of the network.
    assert [a for a in real if "zeros" not in a] == [a for a in expected if "zeros" not in a]


def test_addresses_begin_anew_with_every_batch():
    seen = []
    model = SharedNet()
    with probing(model) as probe:
        probe.read("convolution", lambda visit, result: seen.append(str(visit.site.address)))
        for _ in range(3):
            model(torch.randn(2, 3, 5, 5))
    assert seen == ["conv#1:convolution.1", "conv#2:convolution.1"] * 3


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_reading_gives_the_values_that_hooks_give(context):
    model = ResidualNet().eval()
    inputs = torch.randn(2, 3, 17, 13)
    expected, read = {}, {}
    handles = [
        module.register_forward_hook(lambda m, a, out, name=name: expected.__setitem__(name, out.clone()))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    with context():
        model(inputs)
    for handle in handles:
        handle.remove()
    with probing(model) as probe, context():
        probe.read("convolution", lambda visit, out: read.__setitem__(visit.site.address.path, out.clone()))
        probe.at_module("*", lambda address, out: None)
        model(inputs)
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[name], expected[name]) for name in expected)


def test_what_runs_while_the_probe_is_paused_is_not_seen():
    seen = []
    model = nn.ReLU()
    with probing(model) as probe:
        probe.read("relu", lambda visit, _: seen.append(str(visit.site.address)))
        with probe.paused():
            torch.randn(3).relu()
        model(torch.randn(3))
    assert seen == ["self#1:relu.1"]


def test_replacing_a_value_changes_what_follows():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())
    inputs = torch.randn(2, 3, 6, 5)
    with probing(model) as probe, torch.no_grad():
        probe.around("1#1:relu.1", lambda visit: visit.run() * 2)
        probe.at_module("2", lambda address, out: out + 1)
        changed = model(inputs)
    torch.testing.assert_close(changed, model(inputs) * 2 + 1)


def test_backward_rules_stand_in_for_operators():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3))
    inputs = torch.randn(2, 3, 8, 7, requires_grad=True)
    with probing(model) as probe:
        probe.around("threshold_backward", lambda visit: visit.args[0].clamp(min=0))
        (found,) = torch.autograd.grad(model(inputs).sum(), inputs)
    seed = torch.ones(2, 2, 4, 3)
    rectified = F.conv_transpose2d(seed, model[2].weight).clamp(min=0)
    torch.testing.assert_close(found, F.conv_transpose2d(rectified, model[0].weight))


def test_a_backward_visit_names_its_forward_operator():
    names = {}
    model = SharedNet()
    with probing(model, training=True) as probe:
        probe.read(
            "threshold_backward",
            lambda visit, _: names.__setitem__(str(visit.site.address), str(visit.forward)),
        )
        model(torch.randn(2, 3, 5, 5)).sum().backward()
    assert names == {
        "relu#2:threshold_backward.1": "relu#2:relu_.1",
        "relu#1:threshold_backward.1": "relu#1:relu_.1",
    }


@pytest.mark.parametrize("address", ["conv2", "bn1#1", "self#1:relu_.1", "stem.2", "self#1:add.1"])
def test_run_until_stops_before_anything_overwrites_the_value(address):
    model = ResidualNet().eval()
    inputs = torch.randn(2, 3, 17, 13, requires_grad=True)
    tape = record(model, inputs)
    found = tape.find(address if "#" in address else f"{address}#1")
    ran = []
    with probing(model) as probe:
        for op in ("addmm", "max_pool2d_with_indices"):
            probe.read(op, lambda visit, _: ran.append(visit.site.op))
        value = probe.run_until(address, inputs)
        (gradient,) = torch.autograd.grad(value.sum(), inputs)
    assert tuple(value.shape) == tape.values[found.outputs[0]].shape
    assert ran == []
    assert gradient.abs().sum() > 0
    if address == "conv2":
        assert (value < 0).any()


def test_a_module_goes_by_any_of_its_names():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    model.add_module("again", model[0])
    inputs = torch.randn(1, 3, 5, 5)
    with probing(model) as probe:
        assert torch.equal(probe.run_until("again", inputs), probe.run_until("0", inputs))


def test_run_until_can_be_called_again_and_again():
    model = SharedNet()
    inputs = torch.randn(2, 3, 5, 5)
    with probing(model) as probe:
        first = probe.run_until("conv#1", inputs)
        second = probe.run_until("conv#2", inputs)
        again = probe.run_until("conv", inputs)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("convv", "unknown layer 'convv'.*such as conv"),
        ("conv#3", "isn't passed"),
        ("self#1:cat.1", "isn't passed"),
    ],
)
def test_unknown_addresses_are_named(address, message):
    with probing(SharedNet()) as probe, pytest.raises(ConvscopeError, match=message):
        probe.run_until(address, torch.randn(2, 3, 5, 5))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("fails", [False, True])
def test_model_comes_back_as_it_was(case, fails):
    model = case.make().train()
    before = state_of(model)
    hooks = len(nn_module._global_forward_hooks), len(nn_module._global_forward_pre_hooks)
    try:
        with probing(model, training=True):
            model(torch.randn(case.shape)).sum().backward()
            if fails:
                model(torch.randn(1, 99))
    except RuntimeError:
        assert fails
    after = state_of(model)
    for key in [key for key in before if key.endswith("!kind")]:
        # Writing running statistics back counts as a write, so that versions may have grown.
        before[key], after[key] = before[key][:2], after[key][:2]
    assert after == before
    assert (len(nn_module._global_forward_hooks), len(nn_module._global_forward_pre_hooks)) == hooks
