"""Networks are put into a mode; exported programs have none, and say so where one is needed."""

import pytest
import torch
from torch import nn

import convscope as cs
from convscope.core.modes import has_modes, set_modes


@pytest.fixture
def program():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    return torch.export.export(net, (torch.randn(2, 3, 8, 8),)).module()


def test_an_exported_program_has_no_modes(program):
    assert not has_modes(program)
    set_modes(program, training=False)  # and isn't asked for one
    assert has_modes(nn.ReLU())


def test_it_can_be_recorded_as_it_is(program):
    assert [call.op for call in cs.record(program, (2, 3, 8, 8)).calls if call.op != "empty"] == [
        "convolution", "batch_norm", "relu",
    ]  # fmt: skip


@pytest.mark.parametrize("reading", [cs.checkup, cs.fold])
def test_readings_that_need_modes_name_it(program, reading):
    with pytest.raises(cs.ConvscopeError, match="an exported program, which has neither modules nor modes"):
        reading(program, torch.randn(2, 3, 8, 8))
