"""The whole check-up: its numbers, what it refuses, and that it leaves nothing behind."""

import json
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses import FakeTensor
from torch.nn.modules import module as nn_module
from torch.optim.swa_utils import AveragedModel

import convscope as cs
from cases import CASES, DictNet, FunctionalNet, ResidualNet
from checkup.grown import Small, bits_of, evidence, faults, grow, images, loader
from convscope import checkup
from convscope.checkup import Checkup, CheckupPlan, Unchecked, fault, fault_names, remove_fault
from convscope.core.errors import ConvscopeError
from convscope.core.finding import Finding
from convscope.norm.layers.batch import BatchNorm2d


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, BatchNorm2d])
@pytest.mark.parametrize("training", [True, False])
def test_a_healthy_network_has_no_findings(norm, training):
    model = grow(Small(norm)).train(training)
    found = checkup(model, loader())
    assert faults(found) == []
    assert [(row.address, row.channels) for row in found.layers] == [
        ("bn1#1", 8),
        ("bn2#1", 12),
        ("bn3#1", 12),
    ]
    assert (found.num_samples, found.num_batches, found.depth) == (96, 6, "data")
    assert found.unchecked == ()
    assert abs(found.gap) < 4 * found.gap_error + 0.05


def _captured(model, batches):
    """Each batch norm's inputs over all batches, by plain hooks."""
    seen = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, args, name=name: seen.setdefault(name, []).append(args[0]))
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    model.eval()
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts).double().numpy() for name, parts in seen.items()}


def test_rows_are_the_statistics_of_stored_activations():
    model = grow(Small(), batches=3)
    batches = list(images(50).split(16))
    found = checkup(model, batches)
    inputs = _captured(model, batches)
    assert {row.path for row in found.layers} == set(inputs)
    for row in found.layers:
        layer, x = model.get_submodule(row.path), inputs[row.path]
        scale = layer.running_var.double().numpy() + layer.eps
        mean = np.abs(x.mean((0, 2, 3)) - layer.running_mean.numpy()) / np.sqrt(scale)
        spread = np.moveaxis(x, 1, 0).reshape(row.channels, -1).var(1, ddof=1) + layer.eps
        variance = np.abs(np.log(spread / scale))
        assert row.mean_residual == pytest.approx(mean.max(), rel=1e-5)
        assert row.variance_residual == pytest.approx(variance.max(), rel=1e-5)
        assert row.num_values == 16 * x.shape[2] * x.shape[3]
        assert row.num_batches_tracked == 3
        gains = layer.weight.detach().abs()
        assert row.gamma_range == pytest.approx(
            (float(gains.min()), float(gains.median()), float(gains.max()))
        )


def _by_batch(model, x, labels):
    """The loss with batch statistics and without dropout."""
    model.train()
    model.drop.eval()
    loss = F.cross_entropy(model(x).double(), labels, reduction="none")
    return loss.detach()


def test_the_gap_is_the_difference_of_the_two_losses():
    model = grow(Small())
    with torch.no_grad():
        model.bn2.running_mean += 2
    batches = [(images(16), torch.randint(0, 4, (16,))) for _ in range(5)]
    found = checkup(model, batches)
    before = torch.cat(
        [F.cross_entropy(model.eval()(x).double(), y, reduction="none").detach() for x, y in batches]
    )
    after = torch.cat([_by_batch(model, x, y) for x, y in batches])
    assert found.eval_loss == pytest.approx(float(before.mean()), rel=1e-5)
    assert found.batch_loss == pytest.approx(float(after.mean()), rel=1e-5)
    assert found.gap == pytest.approx(float((before - after).mean()), rel=1e-4)
    # Samples of a batch share its statistics: the error is that between the 5 batches, and, as these are few,
    # a part of that between the 80 samples.
    means = torch.stack([part.mean() for part in (before - after).split(16)])
    of_batches, of_samples = float(means.std() / 5**0.5), float((before - after).std() / 80**0.5)
    both = max(math.hypot(of_batches, (3 / 4) ** 0.5 * of_samples), of_samples)
    assert found.gap_error == pytest.approx(both, rel=1e-4)


def test_a_users_loss_and_the_lack_of_one():
    model = grow(Small(), batches=60)
    x, y = images(32), torch.randn(32, 4)
    found = checkup(model, [(x, y), (x, y)], loss=lambda outputs, target: F.mse_loss(outputs, target))
    assert found.eval_loss == pytest.approx(float(F.mse_loss(model.eval()(x).detach(), y)), rel=1e-5)
    without = checkup(model, [(x, y)])
    assert without.gap is None
    assert Unchecked("gap", "the labels aren't integer classes, and no loss was given") in without.unchecked
    assert Unchecked("gap", "the data has no labels") in checkup(model, x).unchecked
    broken = checkup(model, [(x, y)], loss=lambda outputs, target: outputs.sum() * float("nan"))
    assert broken.gap is None
    assert Unchecked("gap", "a loss that is NaN or infinite") in broken.unchecked


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        (lambda x, y: (x, y + float("nan")), "a loss that is NaN or infinite"),
        (lambda x, y: (x,), "the data has no labels"),
    ],
)
def test_a_gap_over_a_part_says_over_how_many_samples(spoilt, reason):
    model = grow(Small(), batches=60)
    batches = [(images(16), torch.randn(16, 4)) for _ in range(3)]
    found = checkup(model, [*batches[:2], spoilt(*batches[2])], loss=F.mse_loss)
    words = f"1 of 3 batches left out: {reason}; the gap is over 32 of 48 samples"
    assert Unchecked("gap", words) in found.unchecked
    assert found.gap == pytest.approx(checkup(model, batches[:2], loss=F.mse_loss).gap)
    none = checkup(model, [spoilt(*batch) for batch in batches], loss=F.mse_loss)
    assert none.gap is None
    assert Unchecked("gap", f"3 of 3 batches left out: {reason}") in none.unchecked


class _Wrapper(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


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


def _by_modes(model):
    for module in model.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@pytest.mark.parametrize("freeze", [_by_modes, lambda model: cs.norm.freeze(model.train())])
def test_where_all_are_frozen_that_is_said(freeze):
    model = grow(Small())
    freeze(model)
    found = checkup(model, [(images(16), torch.randint(0, 4, (16,)))] * 2)
    assert [row.frozen for row in found.layers] == [True] * 3
    assert found.gap is None
    words = "all 3 batch norms are frozen: statistics, gap and batches weren't judged"
    assert words in {note.reason for note in found.unchecked}


def test_one_batch_says_what_its_error_leaves_out():
    model, batch = grow(Small()), (images(32), torch.randint(0, 4, (32,)))
    found = checkup(model, batch)
    (note,) = (note for note in found.unchecked if note.what == "standard error of the gap")
    assert "one batch doesn't show how batches differ" in note.reason
    assert found.gap_error > 0
    assert checkup(model, [batch] * 2).unchecked == ()


def test_ignored_labels_weigh_nothing():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    batches = []
    for number in range(3):
        labels = torch.randint(0, 4, (8, 11, 9))
        labels[:, : 2 + 2 * number] = -100
        labels[0] = -100
        batches.append((images(8, (11, 9)), labels))
    found = checkup(model, batches)
    logits = torch.cat([model.eval()(x).detach() for x, _ in batches])
    expected = nn.CrossEntropyLoss()(logits.double(), torch.cat([labels for _, labels in batches]))
    assert found.eval_loss == pytest.approx(float(expected), rel=1e-5)
    nothing = checkup(model, [(x, torch.full_like(labels, -100)) for x, labels in batches])
    assert nothing.gap is None
    assert "all labels are -100" in " ".join(note.reason for note in nothing.unchecked)


class _Counted(nn.Module):
    """Counts the samples that run forward for real, and the gradients that come back."""

    def __init__(self, dropout, runs):
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4)
        self.drop = nn.Dropout(dropout)
        self.note = lambda x: None if isinstance(x, FakeTensor) else runs.append(len(x))

    def forward(self, x):
        self.note(x)
        x = self.bn(self.drop(self.conv(x)))
        if x.requires_grad:
            x.register_hook(self.note)
        return self.head(x.relu().mean((2, 3)))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("size", [4, 32, 50, 64, 200])
def test_four_passes_over_the_data_at_most(size, dropout):
    runs = []
    batch = (images(size), torch.randint(0, 4, (size,)))
    checkup(_Counted(dropout, runs), batch, plan=CheckupPlan(attribute=False))
    assert sum(runs) <= 4 * size
    assert runs.count(size) >= 2


@pytest.mark.parametrize("make", [torch.jit.script, lambda net: torch.jit.trace(net, images(2))])
@pytest.mark.parametrize("data", [None, torch.zeros(2, 3, 11, 9)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_one_clear_line(make, data):
    model = make(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval())
    with pytest.raises(ConvscopeError, match="is a TorchScript module"):
        checkup(model, data)


@pytest.mark.parametrize("plan", [3, {"max_batches": 3}])
def test_a_plan_is_a_plan(plan):
    with pytest.raises(ConvscopeError, match="expected a CheckupPlan"):
        checkup(Small(), plan=plan)


@pytest.mark.parametrize("momentum", [2.0, -0.5])
def test_a_momentum_that_averages_nothing_leaves_the_noise_unknown(momentum):
    model = grow(Small())
    model.bn2.momentum = momentum
    found = checkup(model, loader())
    assert found.layers[1].mean_error == math.inf
    assert found.layers[0].mean_error < 1
    assert "momentum-convention" in {each.fault for each in found.findings if each.address == "bn2#1"}


def test_layers_of_other_shapes_than_the_references_are_counted():
    model, other = grow(Small()), Small()
    other.conv2, other.bn2 = nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6)
    for reference in (other, other.state_dict()):
        found = checkup(model, loader(), reference=reference)
        (note,) = (note for note in found.unchecked if note.what == "layers beside the reference's")
        assert "2 couldn't be compared" in note.reason or "3 couldn't be compared" in note.reason
        assert "conv2 (weight" in note.reason


@pytest.mark.parametrize("model", [ResidualNet(), Small(BatchNorm2d, bias=True), FunctionalNet()])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_comes_back_as_it_was(model, training):
    model.train(training)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    labels = [(images(8, (17, 13)), torch.randint(0, 4, (8,))) for _ in range(2)]
    before, hooks = bits_of(model), _global_state()
    checkup(model, labels)
    assert bits_of(model) == before
    assert _global_state() == hooks


def _global_state():
    hooks = [
        dict(getattr(nn_module, name))
        for name in dir(nn_module)
        if name.startswith("_global_") and "hooks" in name
    ]
    return hooks, random.getstate(), np.random.get_state()[1].tolist(), torch.is_grad_enabled()


@pytest.mark.parametrize("good", [0, 1, 3])
def test_an_exception_in_the_data_leaves_no_trace(good):
    def batches():
        for _ in range(good):
            yield images(4), torch.randint(0, 4, (4,))
        torch.rand(1), random.random(), np.random.rand()
        raise OSError("disk gone")

    model = grow(Small(), batches=3)
    before, hooks = bits_of(model), _global_state()
    with pytest.raises(OSError, match="disk gone"):
        checkup(model, batches())
    assert bits_of(model) == before
    assert _global_state() == hooks


def test_loading_is_not_watched():
    """A model that runs inside the data's loading, with batch norm, isn't taken for a part of the network."""
    augment = nn.BatchNorm2d(3).eval()
    found = checkup(grow(Small(), batches=60), (augment(images(16)).detach() for _ in range(3)))
    assert [row.address for row in found.layers] == ["bn1#1", "bn2#1", "bn3#1"]
    assert all(row.num_values == 16 * h for row, h in zip(found.layers, (99, 20, 20)))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (torch.randn(2, 5, 11, 9), "fails in conv1#1 on images of shape (2, 5, 11, 9)"),
        (torch.zeros(2, 3, 11, 9, dtype=torch.uint8), "fails in conv1#1"),
        (torch.full((2, 3, 11, 9), float("inf")), "NaN or infinite"),
        ([], "without a single batch"),
        ((torch.randn(2, 3, 11, 9), torch.tensor([0, 4])), "labels from 0 to 4 for 4 classes"),
        ((2, 5, 11, 9), "conv1"),
    ],
)
def test_bad_data_is_one_clear_line(data, words):
    model = Small()
    before = bits_of(model)
    with pytest.raises(ConvscopeError) as raised:
        checkup(model, data)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert bits_of(model) == before


def test_bad_model_and_optimizer():
    with pytest.raises(ConvscopeError, match=r"resnet18.*torch\.nn\.Module"):
        checkup("resnet18")
    with pytest.raises(ConvscopeError, match="optimizer of type float"):
        checkup(Small(), None, optimizer=0.1)
    with pytest.raises(ConvscopeError, match="lazy module"):
        checkup(nn.Sequential(nn.LazyBatchNorm2d()))


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
    assert sorted(faults(found)) == [
        ("shared-over-domains", "bn#2"),
        ("stale-statistics", "bn#1"),
        ("stale-statistics", "bn#2"),
    ]


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


def test_static_depths():
    model = grow(Small())
    bare, flow = checkup(model), checkup(model, (2, 3, 11, 9))
    assert (bare.depth, flow.depth, bare.num_samples) == ("static", "static", 0)
    assert [row.address for row in bare.layers] == [row.address for row in flow.layers]
    assert [row.dead_channels for row in bare.layers] == [None] * 3
    assert [row.dead_channels for row in flow.layers] == [0] * 3
    assert all(row.mean_residual is None and row.effective_values is None for row in flow.layers)
    assert bare.gap is None


def test_anyone_can_add_a_fault():
    @fault("large-epsilon")
    def large_epsilon(observation):
        for norm in observation.norms:
            if norm.eps > 0.1:
                yield Finding("large-epsilon", "info", norm.address, (), "ε is above 0.1")
            else:
                yield Unchecked(norm.address, "looks fine")

    try:
        assert "large-epsilon" in fault_names()
        model = Small()
        model.bn2.eps = 0.5
        found = checkup(model)
        assert faults(found)[-1] == ("large-epsilon", "bn2#1")
        assert Unchecked("bn1#1", "looks fine") in found.unchecked
        with pytest.raises(ConvscopeError, match="isn't taken"):
            fault("large-epsilon")(large_epsilon)
    finally:
        remove_fault("large-epsilon")
    with pytest.raises(ConvscopeError):
        remove_fault("large-epsilon")


def test_findings_come_by_severity():
    model = Small(bias=True).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.1)
    found = checkup(model, loader(), optimizer=optimizer)
    order = ["error", "warning", "advice", "info"]
    ranks = [order.index(finding.severity) for finding in found.findings]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) > 1
    assert evidence(found.findings[-1], "parameters") > 0


def test_results_are_plain_json():
    found = checkup(Small(), loader())
    read = json.loads(found.to_json())
    assert read["gap"] == found.gap
    assert read["layers"][0]["address"] == "bn1#1"
    assert read["findings"][0]["fault"] == found.findings[0].fault


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


@pytest.mark.parametrize("data", [None, (2, 3, 8, 8), torch.zeros(2, 3, 8, 8)])
def test_a_model_without_numbers_is_refused(data):
    with torch.device("meta"):
        model = Small()
    with pytest.raises(ConvscopeError, match="meta device"):
        checkup(model, data)
