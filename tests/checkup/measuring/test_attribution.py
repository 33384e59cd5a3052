"""The gap layer by layer: against a loop over modules, and which layer comes first."""

import pytest
import torch
import torch.nn.functional as F
from bench.checkup_suite.networks import ARCHITECTURES, NUM_CLASSES, grown, images, labels_of
from bench.checkup_suite.networks import loader as shuffled
from torch import nn

from checkup.grown import Small, bits_of, grow
from convscope import checkup
from convscope.checkup import CheckupPlan
from convscope.norm import freeze


def _batches(model, number=160, size=16):
    """Pictures with the labels that a healthy model gives them, so that whatever is planted costs much."""
    pictures = images(number, seed=5)
    with torch.no_grad():
        labels = model.eval()(pictures).argmax(1)
    model.train()
    return list(zip(pictures.split(size), labels.split(size), strict=True))


def _sharpen(model):
    """Let the outputs be far apart, as a trained network's are."""
    with torch.no_grad():
        head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        head.weight.mul_(6)
        head.bias.mul_(6)
    return model


def _make_stale(norm, by=2.5):
    with torch.no_grad():
        norm.running_mean += by * norm.running_var.sqrt()


def _norms(model):
    return [path for path, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]


def _switched(model, path, batches):
    """Each sample's loss with one batch norm in training mode, by PyTorch's own modes."""
    model.eval()
    losses = []
    for x, y in batches:
        norm = model.get_submodule(path)
        norm.train()
        momentum, norm.momentum = norm.momentum, 0.0
        with torch.no_grad():
            losses.append(F.cross_entropy(model(x).double(), y, reduction="none"))
        norm.momentum = momentum
        norm.eval()
    return torch.cat(losses)


def test_shares_are_those_of_a_loop_over_modules():
    model = _sharpen(grown("residual"))
    batches = _batches(model)
    _make_stale(model.block1.bn1)
    found = checkup(model, batches)
    with torch.no_grad():
        model.eval()
        before = torch.cat([F.cross_entropy(model(x).double(), y, reduction="none") for x, y in batches])
    assert {share.path for share in found.attribution} == set(_norms(model))
    for share in found.attribution:
        differences = before - _switched(model, share.path, batches)
        assert share.difference == pytest.approx(float(differences.mean()), abs=1e-5)
        means = torch.stack([part.mean() for part in differences.split(16)])
        assert share.error == pytest.approx(float(means.std() / len(means) ** 0.5), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        pytest.param(name, number, marks=() if number in (0, last) else pytest.mark.slow)
        for name, last in (("residual", 6), ("plain", 2))
        for number in range(last + 1)
    ],
)
def test_the_wrong_layer_comes_first_and_the_finding_names_it(name, number):
    model = _sharpen(grown(name))
    batches = _batches(model)
    path = _norms(model)[number]
    _make_stale(model.get_submodule(path))
    found = checkup(model, batches)
    assert found.attribution[0].path == path
    (gap,) = [finding for finding in found.findings if finding.fault == "train-eval-gap"]
    assert f"switching {path} alone to batch statistics takes" in gap.why


def _deep():
    layers = []
    for channels in (3, *[12] * 11):
        layers += [nn.Conv2d(channels, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, NUM_CLASSES))


@pytest.mark.parametrize(
    "number", [4, pytest.param(1, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)]
)
def test_a_layer_that_misleads_many_is_first(number):
    torch.manual_seed(3)
    model = _sharpen(grow(_deep(), batches=80, make=lambda: images(16, seed=int(torch.randint(999, ())))))
    batches = _batches(model)
    path = _norms(model)[number]
    _make_stale(model.get_submodule(path))
    found = checkup(model, batches)
    misled = [row.path for row in found.layers if row.stale_channels]
    assert len(misled) > 1
    assert found.attribution[0].path == path
    assert len(found.attribution) == 12


def _counting(model):
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def test_one_pass_a_layer_and_none_without_a_gap():
    model = _sharpen(grown("plain"))
    batches = _batches(model)
    calls = _counting(model)
    healthy = checkup(model, batches)
    assert healthy.attribution == ()
    without = len(calls)
    _make_stale(model[5])
    calls.clear()
    assert len(checkup(model, batches).attribution) == 3
    assert len(calls) == without + 3 * len(batches)
    calls.clear()
    assert checkup(model, batches, plan=CheckupPlan(attribute=False)).attribution == ()
    assert len(calls) == without


def test_progress_and_batches_that_do_not_fit():
    model = _sharpen(grown("plain"))
    batches = _batches(model)
    _make_stale(model[5])
    told = []
    size = sum(tensor.numel() * tensor.itemsize for tensor in batches[0])
    found = checkup(model, batches, plan=CheckupPlan(kept_bytes=4 * size, progress=told.append))
    steps = [(step.done, step.total) for step in told if "gap" in step.purpose]
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert [(step.done, step.total) for step in told if "batches" in step.purpose][-1] == (10, 10)
    assert found.attribution[0].path == "5"
    assert ("attribution of the gap", f"of 10 batches with a loss, 4 fitted into {4 * size} B") in [
        (each.what, each.reason) for each in found.unchecked
    ]


def test_frozen_layers_have_no_part_in_it_and_nothing_changes():
    model = _sharpen(grown("residual"))
    batches = _batches(model)
    freeze(model, only="bn")
    _make_stale(model.block1.bn2)
    before = bits_of(model)
    found = checkup(model, batches)
    assert "bn" not in {share.path for share in found.attribution}
    assert found.attribution[0].path == "block1.bn2"
    assert bits_of(model) == before
    assert found.state.unchanged


def test_a_layer_called_twice_is_switched_as_one():
    class Twice(Small):
        def __init__(self):
            super().__init__()
            self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
            self.head = nn.Linear(8, NUM_CLASSES)

        def forward(self, x):
            x = torch.relu(self.bn1(self.conv1(x)))
            x = torch.relu(self.bn1(self.conv2(x)))
            return self.head(x.mean((2, 3)))

    model = _sharpen(grow(Twice(), make=lambda: images(16, seed=int(torch.randint(999, ())))))
    batches = _batches(model)
    _make_stale(model.bn1)
    found = checkup(model, batches)
    assert [(share.path, share.address) for share in found.attribution] == [("bn1", "bn1#1")]
    before = torch.cat([F.cross_entropy(model.eval()(x).double(), y, reduction="none") for x, y in batches])
    expected = float((before - _switched(model, "bn1", batches)).mean().detach())
    assert found.attribution[0].difference == pytest.approx(expected, abs=1e-5)


def test_the_suites_networks_are_healthy():
    for name in ARCHITECTURES:
        found = checkup(grown(name), shuffled())
        assert found.attribution == ()
        assert labels_of(images(4)).shape == (4,)
