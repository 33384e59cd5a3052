"""Wrappers are told by what they are; the network within keeps its names."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from convscope.checkup.measuring.wrappers import averaging_wrapper, inside, per_sample_gradients


def _net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (lambda net: net, ""),
        (AveragedModel, "module."),
        (nn.DataParallel, "module."),
        (lambda net: AveragedModel(nn.DataParallel(net)), "module.module."),
        (lambda net: torch.compile(net, backend="eager"), "_orig_mod."),
    ],
)
def test_the_network_within(wrap, prefix):
    model = wrap(_net())
    found = inside(model)
    assert found.prefix == prefix
    assert type(found.network) is nn.Sequential
    for name, parameter in found.network.named_parameters():
        assert model.get_parameter(prefix + name) is parameter


class _Own(nn.Module):
    """A network with a child of a wrapper's usual name, and a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.module = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.ones(2))


def test_a_network_with_parameters_of_its_own_is_no_wrapper():
    model = _Own()
    assert inside(model) == (model, "")


def test_averages():
    class Mine(AveragedModel):
        pass

    assert averaging_wrapper(AveragedModel(_net())) == "AveragedModel"
    assert averaging_wrapper(Mine(_net())) == "Mine"
    assert averaging_wrapper(nn.DataParallel(_net())) == ""
    assert averaging_wrapper(copy.deepcopy(_net())) == ""


@pytest.mark.parametrize("name", ["ModelEmaV2", "ModelEmaV3"])
def test_timms_averages(name):
    utils = pytest.importorskip("timm.utils")
    assert averaging_wrapper(getattr(utils, name)(_net())) == name


def _opacus(net):
    """A wrapper as of Opacus: its name, and what it gives to parameters."""
    return type("GradSampleModule", (nn.DataParallel,), {})(net)


def _marked(net):
    for parameter in net.parameters():
        parameter.grad_sample = None
    return net


def _extended(net):
    net[1]._backpack_extend = True
    return net


@pytest.mark.parametrize(
    ("change", "said"),
    [(lambda net: net, ""), (_opacus, "Opacus"), (_marked, "grad_sample"), (_extended, "BackPACK")],
)
def test_per_sample_gradients(change, said):
    found = per_sample_gradients(change(_net()))
    assert (said in found) if said else found == ""
