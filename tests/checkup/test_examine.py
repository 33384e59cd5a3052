"""The whole check-up: its numbers, its findings, and what it costs."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses import FakeTensor

from checkup.grown import Small, evidence, faults, grow, images, loader
from convscope import checkup
from convscope.checkup import CheckupPlan, Unchecked, fault, fault_names, remove_fault
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


def test_one_batch_says_what_its_error_leaves_out():
    model, batch = grow(Small()), (images(32), torch.randint(0, 4, (32,)))
    found = checkup(model, batch)
    (note,) = (note for note in found.unchecked if note.what == "standard error of the gap")
    assert "one batch doesn't show how batches differ" in note.reason
    assert found.gap_error > 0
    assert checkup(model, [batch, (images(32), batch[1])]).unchecked == ()


def test_a_batch_that_is_repeated_tells_nothing_of_others():
    batch = images(32), torch.randint(0, 4, (32,))
    (note,) = checkup(grow(Small()), [batch] * 8).unchecked
    assert note.what == "sorted-batches"
    assert note.reason == "there aren't two batches of one size that differ; give several"


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


def test_loading_is_not_watched():
    """A model that runs inside the data's loading, with batch norm, isn't taken for a part of the network."""
    augment = nn.BatchNorm2d(3).eval()
    found = checkup(grow(Small(), batches=60), (augment(images(16)).detach() for _ in range(3)))
    assert [row.address for row in found.layers] == ["bn1#1", "bn2#1", "bn3#1"]
    assert all(row.num_values == 16 * h for row, h in zip(found.layers, (99, 20, 20)))


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
