"""Networks are put into a mode; exported programs have none, and say so where one is needed."""

import pytest
import torch
from torch import nn

import convscope as cs
from convscope.core.modes import set_modes


@pytest.fixture
def program():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    return torch.export.export(net, (torch.randn(2, 3, 8, 8),)).module()


def test_an_exported_program_has_no_modes(program):
    assert not set_modes(program, training=False)
    assert set_modes(nn.ReLU(), training=False)


def test_it_can_be_recorded_as_it_is(program):
    assert [call.op for call in cs.record(program, (2, 3, 8, 8)).calls if call.op != "empty"] == [
        "convolution", "batch_norm", "relu",
    ]  # fmt: skip


def test_readings_that_need_modes_name_it(program):
    with pytest.raises(cs.ConvscopeError, match="an exported program, which has neither modules nor modes"):
        cs.checkup(program, torch.randn(2, 3, 8, 8))
