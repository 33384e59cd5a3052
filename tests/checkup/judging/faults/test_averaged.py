"""Averaged weights with the statistics of a network that they aren't the weights of."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

import convscope as cs
from checkup.grown import Small, evidence, grow, images, loader
from convscope import checkup


def _far(seed=1):
    """Two networks whose weights lie apart, and their average with the second one's buffers."""
    torch.manual_seed(seed)
    raw = grow(Small())
    averaged = AveragedModel(raw)
    averaged.update_parameters(raw)
    with torch.no_grad():
        for convolution in (raw.conv1, raw.conv2, raw.conv3):
            convolution.weight.copy_(3 * torch.randn_like(convolution.weight) * convolution.weight.std())
        for layer in (raw.bn1, raw.bn2, raw.bn3):
            layer.weight.mul_(1.1)
    cs.norm.recalibrate(raw, loader())
    averaged.update_parameters(raw)
    return raw, averaged


def _near():
    raw = grow(Small())
    averaged = AveragedModel(raw)
    averaged.update_parameters(raw)
    return raw, averaged


def _of(found):
    return [
        (f.severity, f.address.startswith("module.")) for f in found.findings if f.fault == "averaged-weights"
    ]


def test_a_wrapper_on_data():
    _, averaged = _far()
    found = checkup(averaged, loader())
    ((severity, _),) = _of(found)
    assert severity in ("error", "warning")
    finding = next(f for f in found.findings if f.fault == "averaged-weights")
    assert "AveragedModel" in finding.why
    assert finding.effect > 1
    assert evidence(finding, "gap") == pytest.approx(found.gap)
    cs.norm.recalibrate(averaged, loader())
    assert _of(checkup(averaged, loader())) == []


def test_pytorchs_own_repair_counts_too():
    _, averaged = _far()
    update_bn(loader(96, 16), averaged)
    for layer in averaged.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.num_batches_tracked.fill_(100)
    assert _of(checkup(averaged, loader())) == []


def test_an_average_that_stayed_near_is_fine_on_data_and_advice_without():
    _, averaged = _near()
    assert _of(checkup(averaged, loader())) == []
    assert _of(checkup(averaged)) == [("advice", True)]


def test_beside_the_raw_network():
    raw, averaged = _far()
    model = averaged.module
    assert _of(checkup(model)) == []
    assert _of(checkup(model, reference=raw)) == [("warning", False)]
    assert _of(checkup(model, reference=raw.state_dict())) == [("warning", False)]
    ((severity, _),) = _of(checkup(model, loader(), reference=raw))
    assert severity in ("error", "warning")
    cs.norm.recalibrate(model, loader())
    assert _of(checkup(model, reference=raw)) == []


def test_the_raw_network_itself_and_a_frozen_one():
    raw = grow(Small())
    assert _of(checkup(copy.deepcopy(raw), reference=raw)) == []
    tuned = copy.deepcopy(raw)
    cs.norm.freeze(tuned)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.add_(0.01)
    assert _of(checkup(tuned, reference=raw)) == []
    assert _of(checkup(tuned.eval(), reference=raw)) == []
    # γ and β as they were: only convolutions were trained on, with batch norms that stood still.
    tuned = copy.deepcopy(raw)
    with torch.no_grad():
        tuned.conv1.weight.add_(0.01)
    assert _of(checkup(tuned, reference=raw)) == []


class AdamWScheduleFree(torch.optim.AdamW):
    """Stands for the optimizer of that name: its weights are averages of its iterates."""


def test_an_optimizer_that_averages():
    raw = grow(Small())
    optimizer = AdamWScheduleFree(raw.parameters(), weight_decay=0)
    assert _of(checkup(raw, optimizer=optimizer)) == [("advice", False)]
    assert _of(checkup(raw, loader(), optimizer=optimizer)) == []
    with torch.no_grad():
        raw.conv2.weight.mul_(4)
    assert _of(checkup(raw, list(images(96).split(16)), optimizer=optimizer)) == [("error", False)]
