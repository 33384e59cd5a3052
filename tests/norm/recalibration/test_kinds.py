"""All kinds of batch norm, each in the deployed network, against statistics of all its inputs at once."""

import pytest
import timm.layers
import torch
from torch import nn

from cases import state_of
from convscope import norm
from convscope.norm.freezing.freeze import freeze
from convscope.norm.layers.ghost import GhostBatchNorm2d
from convscope.norm.layers.renorm import BatchRenorm2d
from convscope.norm.layers.sync import SyncBatchNorm
from convscope.norm.recalibration.recalibrate import recalibrate
from norm.recalibration.recalibrated import deployed_inputs, two_pass, unchanged

KINDS = {
    "torch": nn.BatchNorm2d,
    "torch sync": nn.SyncBatchNorm,
    "timm act": timm.layers.BatchNormAct2d,
    "timm sync act": timm.layers.SyncBatchNormAct,
    "ours": norm.BatchNorm2d,
    "sync": SyncBatchNorm,
    "renorm": BatchRenorm2d,
    "ghost": lambda channels: GhostBatchNorm2d(channels, ghost_batch_size=2),
}


def network(kind):
    layers = (nn.Conv2d(2, 4, 3), KINDS[kind](4), nn.Conv2d(4, 4, 3), KINDS[kind](4))
    return nn.Sequential(*layers).double().train()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["one-pass", "sequential"])
def test_every_kind(kind, method):
    net, x = network(kind), 3 + torch.randn(9, 2, 8, 8, dtype=torch.float64)
    batches = list(x.split(4))  # the last one of a single sample
    found = recalibrate(net, batches, method=method)
    inputs = deployed_inputs(net, batches)
    for layer in found.layers if method == "sequential" else found.layers[:1]:
        module = net.get_submodule(layer.path)
        mean, variance = two_pass(*inputs[layer.path])
        assert torch.allclose(module.running_mean, mean, rtol=1e-10)
        assert torch.allclose(module.running_var, variance, rtol=1e-10)
    assert found.residual_after < (1e-9 if method == "sequential" else 0.1)
    assert found.residual_before > 1
    assert net[1].training


@pytest.mark.parametrize("kind", ["torch", "ours", "renorm", "ghost"])
def test_frozen_layers_of_every_kind_stay(kind):
    net, x = network(kind), 3 + torch.randn(9, 2, 8, 8, dtype=torch.float64)
    freeze(net[1])
    before = state_of(net)
    found = recalibrate(net, x)
    assert [layer.status for layer in found.layers] == ["frozen", "recalibrated"]
    names = ("running_mean", "running_var", "num_batches_tracked")
    unchanged(net, before, but=[f"3._buffers.{name}" for name in names])
    assert torch.allclose(net[3].running_var, two_pass(net[:3].eval()(x).detach())[1], rtol=1e-10)


@pytest.mark.slow
def test_networks_of_timm():
    net = timm.create_model("mobilenetv3_small_050", num_classes=4)
    x = torch.randn(12, 3, 64, 64)
    found = recalibrate(net, list(x.split(5)), method="sequential")
    assert {layer.status for layer in found.layers} == {"recalibrated"}
    assert found.residual_after < 1e-3
    assert found.residual_before > 1
