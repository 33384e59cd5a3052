"""Layers that aren't what they were: conversions that lose, group norms that don't fit."""

import copy

import pytest
import torch
from torch import nn

import convscope as cs
from checkup.grown import Small, bits_of, evidence, faults, grow, images, loader
from convscope import checkup


class Swish(nn.BatchNorm2d):
    def forward(self, x):
        return nn.functional.silu(super().forward(x))


class Masked(nn.BatchNorm2d):
    """Can't be run beside its origin: it wants a mask, which the network's forward hands over."""

    def forward(self, x, mask=None):
        if mask is None:
            raise TypeError("no mask")
        return super().forward(x * mask)


class MaskedSmall(Small):
    def forward(self, x):
        x = self.conv1(x)
        args = (torch.ones_like(x[:, :1]),) if isinstance(self.bn1, Masked) else ()
        x = torch.relu(self.bn1(x, *args))
        return self.head(torch.relu(self.bn2(self.conv2(x))).mean((2, 3)))


ORIGIN = grow(Small(Swish))


@pytest.fixture
def origin():
    return copy.deepcopy(ORIGIN)


def _by_torch(model):
    return nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))


def _lost(found):
    return [(f.severity, f.address) for f in found.findings if f.fault == "lost-behaviour"]


@pytest.mark.parametrize("data", [None, (2, 3, 11, 9), "loader"])
@pytest.mark.parametrize("training", [True, False])
def test_pytorchs_converter_drops_the_activation(origin, data, training):
    model = _by_torch(origin).train(training)
    data = loader() if data == "loader" else data
    before = bits_of(model), bits_of(origin)
    found = checkup(model, data, reference=origin)
    assert _lost(found) == [("error", "bn1#1")]
    finding = next(f for f in found.findings if f.fault == "lost-behaviour")
    assert evidence(finding, "layers") == 3
    assert "Swish.forward" in finding.why
    assert (bits_of(model), bits_of(origin)) == before
    kept = copy.deepcopy(origin)
    cs.norm.convert(kept, "sync", (2, 3, 11, 9))
    assert _lost(checkup(kept.train(training), data, reference=origin)) == []


def test_the_outputs_difference_is_told(origin):
    model = _by_torch(origin)
    x = images(8)
    found = checkup(model, x, reference=origin)
    with torch.no_grad():
        before, after = (copy.deepcopy(net).eval()(x).double() for net in (origin, model))
    finding = next(f for f in found.findings if f.fault == "lost-behaviour")
    wanted = float((after - before).abs().max() / before.std(correction=0))
    assert evidence(finding, "difference of the outputs") == pytest.approx(wanted, rel=1e-6)


def test_it_is_seen_after_training_on(origin):
    model = _by_torch(origin)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    assert _lost(checkup(model, reference=origin)) == [("error", "bn1#1")]


def test_a_difference_that_never_shows_is_none():
    """A second ReLU does nothing: the layer is another one, the network is the same."""

    class Cut(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x).relu()

    class Stem(Small):
        def forward(self, x):
            return self.head(torch.relu(self.bn1(self.conv1(x))).mean((2, 3)).repeat(1, 2)[:, :12])

    origin = grow(Stem(Cut))
    model = _by_torch(origin)
    assert _lost(checkup(model, reference=origin)) == [("error", "bn1#1")]
    assert "lost-behaviour" not in dict(faults(checkup(model, loader(), reference=origin)))


def test_what_couldnt_be_run_is_suspected():
    origin = grow(MaskedSmall())
    model = copy.deepcopy(origin)
    origin.bn1 = Masked(8)
    origin.bn1.load_state_dict(model.bn1.state_dict())
    assert _lost(checkup(model, reference=origin)) == [("warning", "bn1#1")]
    # On data, the two networks are the same.
    assert _lost(checkup(model, loader(), reference=origin)) == []


def test_a_norm_that_was_folded_isnt_lost_and_one_thrown_away_is():
    origin = grow(Small())
    thrown = copy.deepcopy(origin)
    thrown.bn3 = nn.Identity()
    assert _lost(checkup(thrown, loader(), reference=origin)) == [("error", "bn3#1")]
    folded = cs.fold(copy.deepcopy(origin).eval(), (2, 3, 11, 9)).model
    assert _lost(checkup(folded, loader(), reference=origin)) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_another_precision_is_no_other_behaviour(origin, dtype):
    model = copy.deepcopy(origin).to(dtype)
    found = checkup(model, images(8).to(dtype), reference=origin.to(dtype))
    assert "lost-behaviour" not in dict(faults(found))
    assert "lost-behaviour" not in dict(faults(checkup(copy.deepcopy(ORIGIN).to(dtype), reference=ORIGIN)))


def test_group_norms_with_a_batch_norms_gains():
    origin = grow(Small())
    naive = copy.deepcopy(origin)
    cs.norm.convert(naive, "group")
    (finding,) = checkup(naive, loader(), reference=origin).findings
    assert (finding.fault, finding.severity, finding.address) == ("unfitted-group-norm", "warning", "bn1#1")
    assert evidence(finding, "difference of the outputs") > 0.5
    assert [f.severity for f in checkup(naive, reference=origin).findings] == ["advice"]
    fitted = copy.deepcopy(origin)
    cs.norm.convert(fitted, "group", data=loader())
    assert faults(checkup(fitted, loader(), reference=origin)) == []


def test_group_norms_in_an_untrained_network_are_as_good_as_any():
    origin = Small()
    model = copy.deepcopy(origin)
    cs.norm.convert(model, "group")
    assert faults(checkup(model, loader(), reference=origin)) == []


def test_one_value_per_group_on_real_data():
    net = grow(nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.AdaptiveAvgPool2d(1), nn.GroupNorm(16, 16),
    ))  # fmt: skip
    x = images(32)
    assert net.eval()(x).abs().max() < 1e-4  # β, whatever the image
    assert faults(checkup(net, x)) == [("one-value-per-group", "3#1")]
    net[3] = nn.GroupNorm(1, 16)
    assert faults(checkup(net, x)) == []
