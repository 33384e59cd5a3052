"""Nothing but the statistics changes, and nothing at all if something fails."""

import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cases import ResidualNet, state_of
from convscope.core.errors import ConvscopeError
from convscope.norm.recalibration import RecalibrationPlan
from convscope.norm.recalibration.recalibrate import recalibrate
from norm.recalibration.recalibrated import convnet, unchanged

METHODS = ("one-pass", "sequential")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("training", [True, False])
def test_only_statistics_change(method, training):
    net = ResidualNet().train()
    net(torch.randn(4, 3, 20, 20)).square().sum().backward()
    net.conv1.register_forward_hook(lambda module, args, result: result * 1)
    net.shortcut.weight.requires_grad_(False)
    net.train(training)
    loader = DataLoader(TensorDataset(torch.randn(10, 3, 20, 20)), batch_size=3, shuffle=True)
    before, numpy, python = state_of(net), np.random.get_state()[1].tolist(), random.getstate()
    found = recalibrate(net, loader, method=method)
    names = ("running_mean", "running_var", "num_batches_tracked")
    unchanged(
        net, before, but=[f"{path}._buffers.{name}" for path in ("stem.1", "bn1", "bn2") for name in names]
    )
    assert (np.random.get_state()[1].tolist(), random.getstate()) == (numpy, python)
    assert all(layer.status == "recalibrated" for layer in found.layers)
    found.undo()
    unchanged(net, before)
    found.undo()


@pytest.mark.parametrize("method", METHODS)
def test_a_failing_run_leaves_the_network_as_it_was(method):
    class Breaking(nn.Module):
        calls = 0

        def forward(self, x):
            type(self).calls += 1
            if self.calls > 5:
                raise RuntimeError("the third batch is too much")
            return x

    net, x = nn.Sequential(convnet(), Breaking()).train(), torch.randn(16, 2, 9, 9)
    before = state_of(net)
    with pytest.raises(ConvscopeError, match=r"fails in 1#1 on inputs of shape \(4, 2, 9, 9\) \(the third"):
        recalibrate(net, list(x.split(4)), method=method)
    unchanged(net, before)


def _broken_loader():
    yield torch.randn(4, 2, 9, 9)
    raise OSError("a damaged file")


def test_failing_data_leave_the_network_as_it_was():
    net = convnet().train()
    before = state_of(net)
    with pytest.raises(OSError, match="a damaged file"):
        recalibrate(net, _broken_loader())
    unchanged(net, before)


def test_an_interrupt_in_a_late_pass_leaves_the_network_as_it_was():
    def interrupt(told):
        if told.number == 3 and told.num_batches == 2:
            raise KeyboardInterrupt

    net, x = convnet().train(), torch.randn(12, 2, 9, 9)
    before = state_of(net)
    with pytest.raises(KeyboardInterrupt):
        recalibrate(
            net, list(x.split(4)), method="sequential",
            plan=RecalibrationPlan(progress=interrupt),
        )  # fmt: skip
    unchanged(net, before)


@pytest.mark.parametrize("method", METHODS)
def test_the_first_layer_with_nan_is_named(method):
    net, x = convnet(), torch.randn(8, 2, 9, 9)
    with torch.no_grad():
        net[4].weight[0] = math.nan
    before = state_of(net)
    with pytest.raises(ConvscopeError, match=r"^5 given NaN or infinite values, the first"):
        recalibrate(net, x, method=method)
    unchanged(net, before)


def test_inside_inference_mode():
    net, x = convnet(), torch.randn(8, 2, 9, 9)
    with torch.inference_mode():
        found = recalibrate(net, [x * 1])
    assert found.applied
    net.train()(x).sum().backward()


def test_one_value_in_all_is_refused():
    net, x = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), torch.randn(1, 3)
    before = state_of(net)
    with pytest.raises(ConvscopeError, match=r"^1 given one value per channel in all the data"):
        recalibrate(net, x)
    unchanged(net, before)
