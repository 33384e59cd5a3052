"""What a check-up can't take: one clear line."""

import pytest
import torch
from torch import nn

import convscope as cs
from checkup.grown import Small, bits_of, images
from convscope import checkup
from convscope.core.errors import ConvscopeError


@pytest.mark.parametrize("make", [torch.jit.script, lambda net: torch.jit.trace(net, images(2))])
@pytest.mark.parametrize("data", [None, torch.zeros(2, 3, 11, 9)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_one_clear_line(make, data):
    model = make(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval())
    with pytest.raises(ConvscopeError, match="is a TorchScript module"):
        checkup(model, data)


@pytest.mark.parametrize("plan", [3, {"max_batches": 3}])
def test_a_plan_is_a_plan(plan):
    with pytest.raises(ConvscopeError, match="expected a CheckupPlan"):
        checkup(Small(), plan=plan)


def test_mending_takes_a_network_and_a_plan():
    with pytest.raises(ConvscopeError, match="expected a CheckupPlan"):
        checkup.mend(Small(), plan=3)
    with pytest.raises(ConvscopeError, match="'x' as the network"):
        checkup.mend("x", torch.zeros(2, 3, 11, 9))
    with pytest.raises(ConvscopeError, match="kept_bytes='x'"):
        checkup.CheckupPlan(kept_bytes="x")


@pytest.mark.parametrize("data", [None, torch.zeros(2, 3, 11, 9)])
def test_a_batch_norm_that_cannot_be_is_one_clear_line(data):
    wrong, other = Small(), Small()
    wrong.bn1.momentum = "x"
    other.bn1.running_mean = torch.zeros(4)
    with pytest.raises(ConvscopeError, match="momentum='x' in bn1"):
        checkup(wrong, data)
    with pytest.raises(ConvscopeError, match=r"bn1.running_mean of shape \(4,\) for 8 channels"):
        checkup(other, data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (torch.randn(2, 5, 11, 9), "fails in conv1#1 on images of shape (2, 5, 11, 9)"),
        (torch.zeros(2, 3, 11, 9, dtype=torch.uint8), "fails in conv1#1"),
        (torch.full((2, 3, 11, 9), float("inf")), "NaN or infinite"),
        ([], "without a single batch"),
        ((torch.randn(2, 3, 11, 9), torch.tensor([0, 4])), "labels from 0 to 4 for 4 classes"),
        ((2, 5, 11, 9), "conv1"),
    ],
)
def test_bad_data_is_one_clear_line(data, words):
    model = Small()
    before = bits_of(model)
    with pytest.raises(ConvscopeError) as raised:
        checkup(model, data)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert bits_of(model) == before


def test_bad_model_and_optimizer():
    with pytest.raises(ConvscopeError, match=r"resnet18.*torch\.nn\.Module"):
        checkup("resnet18")
    with pytest.raises(ConvscopeError, match="optimizer of type float"):
        checkup(Small(), None, optimizer=0.1)
    with pytest.raises(ConvscopeError, match="lazy module"):
        checkup(nn.Sequential(nn.LazyBatchNorm2d()))


@pytest.mark.parametrize("data", [None, (2, 3, 8, 8), torch.zeros(2, 3, 8, 8)])
def test_a_model_without_numbers_is_refused(data):
    with torch.device("meta"):
        model = Small()
    with pytest.raises(ConvscopeError, match="meta device"):
        checkup(model, data)


@pytest.mark.parametrize("call", [cs.checkup, cs.checkup.mend])
@pytest.mark.parametrize("loss", [3, torch.optim.SGD(Small().parameters(), 0.1)])
def test_a_loss_that_is_none(call, loss):
    with pytest.raises(ConvscopeError, match="the optimizer as optimizer="):
        call(Small(), images(8), loss)
