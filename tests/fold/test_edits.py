"""What is done to a copy of the network: numbers cast once, modules under all of their names."""

import copy

import pytest
import torch
from torch import nn

from convscope.fold.edits import Put, Swap, carry_out
from convscope.fold.recorded.slots import Slot


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_numbers_are_cast_once_and_the_parameter_stays_itself(dtype):
    net = nn.Sequential(nn.Linear(2, 2)).to(dtype)
    weight, numbers = net[0].weight, torch.full((2, 2), 1 / 3, dtype=torch.float64)
    Put(Slot("0", "weight"), numbers)(net)
    assert net[0].weight is weight
    assert torch.equal(weight, numbers.to(dtype))


def test_buffers_take_numbers_too():
    net = nn.Sequential(nn.BatchNorm1d(2))
    Put(Slot("0", "running_mean"), torch.tensor([1.0, 2.0], dtype=torch.float64))(net)
    assert net[0].running_mean.tolist() == [1, 2]
    assert dict(net.named_buffers()).keys() == {"0.running_mean", "0.running_var", "0.num_batches_tracked"}


@pytest.mark.parametrize("trained", [True, False])
def test_a_new_parameter_is_like_another(trained):
    net = nn.Sequential(nn.Linear(2, 2, bias=False)).half().requires_grad_(trained)
    numbers = torch.tensor([1.0, 2.0], dtype=torch.float64)
    Put(Slot("0", "bias"), numbers, like=Slot("0", "weight"))(net)
    assert net[0].bias.dtype == torch.float16
    assert net[0].bias.requires_grad is trained
    numbers.zero_()
    assert net[0].bias.tolist() == [1, 2]


def test_a_parameter_of_its_own_parts_from_the_others():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    before = net[1].weight.detach().clone()
    Put(Slot("0", "weight"), torch.zeros(2, 2, dtype=torch.float64), own=True)(net)
    assert torch.equal(net[1].weight, before)
    assert not net[0].weight.any()


def test_a_module_is_replaced_under_all_of_its_names():
    net = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh()))
    net.append(net[1][0])
    net.eval()
    Swap("1.0", lambda old: nn.Sigmoid())(net)
    assert isinstance(net[1][0], nn.Sigmoid)
    assert net[2] is net[1][0]
    assert isinstance(net[0], nn.ReLU)
    assert not net[2].training


def test_lists_of_its_own_are_those_of_the_network_that_is_changed():
    net = nn.Sequential(nn.ReLU(), nn.Tanh())
    net.steps, net.pair = [net[0], net[1]], (net[0], {"last": net[1]})
    copied = copy.deepcopy(net)
    steps = copied.steps
    carry_out(copied, [Swap("0", lambda old: nn.Sigmoid()), Swap("1", lambda old: nn.GELU())])
    assert copied.steps is steps
    assert steps == list(copied)
    assert copied.pair == (copied[0], {"last": copied[1]})
    assert net.steps == list(net)
    assert net.pair == (net[0], {"last": net[1]})
    assert [type(each) for each in net] == [nn.ReLU, nn.Tanh]


def test_numbers_come_before_modules_and_inner_modules_before_outer_ones():
    net = nn.Sequential(nn.Sequential(nn.Linear(1, 1), nn.ReLU()))
    seen = []

    def outer(old):
        seen.append((type(old[1]).__name__, old[0].weight.item()))
        return nn.Sequential(*old)

    edits = [
        Swap("0", outer),
        Swap("0.1", lambda old: nn.Tanh()),
        Put(Slot("0.0", "weight"), torch.full((1, 1), 3.0, dtype=torch.float64)),
    ]
    carry_out(net, edits)
    assert seen == [("Tanh", 3.0)]
    assert isinstance(net[0][1], nn.Tanh)


def test_the_slot_of_the_network_itself():
    net = nn.Linear(1, 1)
    Put(Slot("", "bias"), torch.tensor([5.0], dtype=torch.float64))(net)
    assert (net.bias.item(), Slot("", "bias").name, Slot("a.b", "c").name) == (5, "bias", "a.b.c")
