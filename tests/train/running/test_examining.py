import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convscope.train.running.examining import examined, first_bad, largest_finite
from train.toy import same_bits, toy_model


def _cause(model, pixels, optimizer=None):
    labels = torch.arange(len(pixels)) % 3

    def step():
        loss = F.cross_entropy(model(pixels), labels)
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss

    return examined(model, pixels, step)


class _Through(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def _with(function):
    model = toy_model(dropout=0)
    return nn.Sequential(*model[:3], _Through(function), *model[3:])


def test_a_sound_step_has_no_cause_and_the_model_comes_back():
    model, before = toy_model(), toy_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    assert _cause(model, torch.randn(6, 2, 6, 5), optimizer) is None
    assert same_bits(model, before)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("foreach", [True, False])
def test_updates_of_many_tensors_at_once_are_looked_at(foreach):
    """Gradients above 1 times a rate of 3e38 have no room in float32."""
    model = nn.Sequential(*toy_model(dropout=0), _Through(lambda x: x * 1e4))
    optimizer = torch.optim.SGD(model.parameters(), lr=3e38, foreach=foreach)
    cause = _cause(model, torch.randn(6, 2, 6, 5), optimizer)
    assert cause.what == "weight"
    assert cause.address in dict(model.named_parameters())


def test_an_infinity_that_reaches_neither_loss_nor_weights_is_none():
    def masked_softmax(x):
        hidden = x.flatten(2).masked_fill(torch.arange(12) < 5, -math.inf)
        return torch.softmax(hidden, -1).view_as(x)

    def mended(x):
        return torch.nan_to_num(torch.log(x * 0), neginf=0.0) + x

    pixels = torch.randn(6, 2, 6, 5)
    assert _cause(_with(masked_softmax), pixels) is None
    assert _cause(_with(mended), pixels) is None


def test_of_two_causes_the_first_is_told_and_earlier_mended_ones_are_not():
    def function(x):
        mended = torch.nan_to_num_(torch.log(x * 0))
        return x + mended * 0 + torch.exp(x + 1000) + torch.log(x * 0)

    cause = _cause(_with(function), torch.randn(6, 2, 6, 5))
    assert (cause.address, cause.what, cause.value) == ("3#1:exp.1", "output", "inf")


def test_an_own_layer_of_pytorch_goes_by_its_module_and_the_second_call_by_its_number():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Linear(2, 2, bias=False)
            nn.init.constant_(self.scale.weight, 1e25)

        def forward(self, x):
            return self.scale(self.scale(x)).flatten(1)[:, :3]

    cause = _cause(Twice(), torch.ones(4, 5, 2))
    assert (cause.address, cause.what, cause.value) == ("scale#2", "output", "inf")
    assert cause.largest_finite == pytest.approx(2e25)


def test_the_first_bad_value_and_the_largest_finite_one():
    tensor = torch.tensor([[1.0, -7.0], [math.inf, math.nan]])
    assert first_bad(tensor) == ("inf", (1, 0))
    assert largest_finite([tensor, torch.zeros(0)]) == 7.0
    assert largest_finite([torch.full((2,), math.nan)]) is None
