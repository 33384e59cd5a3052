"""Networks of every kind are checked: wrapped, frozen, functional, shared, without batch norm."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel

import convscope as cs
from cases import CASES, DictNet
from checkup.grown import Small, bits_of, faults, grow, images, loader
from convscope import checkup
from convscope.checkup import Checkup, Unchecked


def test_a_network_without_batch_norm_says_so():
    for data in (images(4), None, (2, 3, 8, 8)):
        found = checkup(nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.GroupNorm(2, 4)), data)
        assert found.findings == ()
        assert found.layers == ()
        assert any(note.what == "batch norm" for note in found.unchecked)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_kind_of_network_runs(case):
    found = checkup(case.make(), [torch.randn(case.shape)] * 2)
    json.loads(found.to_json())
    assert isinstance(found, Checkup)


def test_outputs_and_inputs_by_name():
    found = checkup(
        nn.Sequential(nn.BatchNorm2d(3)),
        {"image": images(20), "label": torch.zeros(20).long()},
        lambda o, y: o.mean(),
    )
    assert [row.address for row in found.layers] == ["0#1"]
    assert checkup(DictNet(), {"image": images(20), "label": torch.zeros(20).long()}).findings == ()


class Twice(nn.Module):
    """One batch norm for two different inputs, and a functional one that counts nothing."""

    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm2d(3)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("var", torch.ones(3))

    def forward(self, x):
        x = torch.relu(self.bn(x)) + self.bn(x + 3)
        return F.batch_norm(x, self.mean, self.var, training=self.training).mean((2, 3))


def test_every_call_has_its_row():
    found = checkup(grow(Twice(), batches=120), [images(32) for _ in range(4)])
    assert [(row.address, row.path) for row in found.layers] == [
        ("bn#1", "bn"),
        ("bn#2", "bn"),
        ("self#1:batch_norm.1", "self"),
    ]
    assert found.layers[0].num_batches_tracked == 240
    assert faults(found) == [("shared-over-domains", "bn#2")]  # they are a mixture, and rightly so


def test_frozen_layers_are_not_judged_by_their_statistics():
    model = grow(Small(), batches=5)
    model.bn2.eval()
    with torch.no_grad():
        model.bn2.running_mean += model.bn2.running_var.sqrt()
        for _ in range(100):
            model(images(16))
    found = checkup(model, loader())
    assert [row.frozen for row in found.layers] == [False, True, False]
    assert faults(found) == []


def test_modules_that_do_not_run_are_named():
    model = grow(Small())
    model.spare = nn.BatchNorm2d(3)
    found = checkup(model, loader())
    assert found.unchecked == (Unchecked("spare", "this batch norm isn't called when the network runs"),)


class Standardised(nn.Module):
    """Weight standardisation and instance norm by functions, which run the batch norm operator; and one."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))

    def forward(self, x):
        flat = (self.weight * 2).reshape(1, 4, -1)
        weight = F.batch_norm(flat, None, None, training=True).reshape_as(self.weight)
        plain = F.batch_norm(self.weight.reshape(1, 4, -1), None, None, training=True)
        x = F.instance_norm(F.conv2d(x, weight + plain.reshape_as(weight)))
        x = F.instance_norm(x, self.mean, self.var, use_input_stats=False)
        return F.batch_norm(x, self.mean, self.var, training=self.training).mean((2, 3))


@pytest.mark.parametrize("number", [1, 2, 8])
def test_weights_and_single_samples_are_not_batch_normalised(number):
    found = checkup(Standardised(), torch.randn(number, 3, 8, 7))
    assert [row.address for row in found.layers] == ["self#1:batch_norm.5"]


def test_a_network_that_cannot_train_is_checked_as_far_as_it_runs():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=0.0), nn.ReLU())
    batches = [(images(8), torch.zeros(8).long())] * 2
    before = bits_of(model)
    found = checkup(model, batches, loss=lambda o, y: o.mean())
    assert found.num_samples == 16
    assert found.gap is None
    assert found.layers[0].mean_residual is not None
    reasons = {note.what: note.reason for note in found.unchecked}
    assert "eps must be positive" in reasons["batch statistics and gap"]
    assert "eps must be positive" in reasons["redundant-bias"]
    assert bits_of(model) == before


def test_inside_inference_mode_as_outside():
    model, x = grow(Small(bias=True), batches=3), images(16)
    expected = checkup(model, x)
    with torch.inference_mode():
        found = checkup(model, x.clone())
        assert torch.is_inference_mode_enabled()
    assert faults(found) == faults(expected)
    assert found.layers == expected.layers
    assert found.unchecked == expected.unchecked


def test_a_model_of_inference_tensors_is_checked_without_training():
    with torch.inference_mode():
        model = Small().eval()
        found = checkup(model, images(16))
    assert [row.address for row in found.layers] == ["bn1#1", "bn2#1", "bn3#1"]
    assert "redundant-bias" in {note.what for note in found.unchecked}


class _Wrapper(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def _by_modes(model):
    for module in model.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, AveragedModel, _Wrapper, lambda net: nn.Sequential(nn.Identity(), net)],
    ids=["DataParallel", "AveragedModel", "own", "Sequential"],
)
def test_a_new_wrapper_in_training_mode_freezes_nothing(wrap):
    """Wrappers are made in training mode; the network inside was given in evaluation mode."""
    model = grow(Small()).eval()
    with torch.no_grad():
        model.bn2.running_mean += 3 * model.bn2.running_var.sqrt()
    batches = list(loader())
    plain, wrapped = checkup(model, batches), wrap(model)
    assert wrapped.training
    assert not model.training
    found = checkup(wrapped, batches)
    assert [row.frozen for row in found.layers] == [False] * 3
    assert {each.fault for each in plain.findings} <= {each.fault for each in found.findings}
    assert "stale-statistics" in {finding.fault for finding in found.findings}
    assert found.gap == pytest.approx(plain.gap)


@pytest.mark.parametrize("freeze", [_by_modes, lambda model: cs.norm.freeze(model.train())])
def test_where_all_are_frozen_that_is_said(freeze):
    model = grow(Small())
    freeze(model)
    found = checkup(model, [(images(16), torch.randint(0, 4, (16,)))] * 2)
    assert [row.frozen for row in found.layers] == [True] * 3
    assert found.gap is None
    words = "all 3 batch norms are frozen: statistics, gap and batches weren't judged"
    assert words in {note.reason for note in found.unchecked}
