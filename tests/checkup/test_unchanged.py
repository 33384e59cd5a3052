"""A check-up leaves nothing behind, also after an exception."""

import random

import numpy as np
import pytest
import torch
from torch.nn.modules import module as nn_module

from cases import FunctionalNet, ResidualNet
from checkup.grown import Small, bits_of, grow, images
from convscope import checkup
from convscope.norm.layers.batch import BatchNorm2d


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
