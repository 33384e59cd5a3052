"""Who holds the tensors that a run read: parameters that share memory side by side, or with one another."""

import copy

import pytest
import torch
from timm.layers.norm_act import FrozenBatchNorm2d
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from convscope.fold import fold
from fold.nets import IMAGE, Functional, conv


def flattened(net):
    """The network, its parameters views of one flat tensor, side by side."""
    vector_to_parameters(parameters_to_vector(net.parameters()).detach().clone(), net.parameters())
    assert len({parameter.untyped_storage().data_ptr() for parameter in net.parameters()}) == 1
    return net


def plain():
    return nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 4), nn.BatchNorm2d(4), nn.Flatten())


def linear():
    return nn.Sequential(
        nn.Linear(5, 5, bias=False), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 4), nn.BatchNorm1d(4)
    )


def called():
    return Functional(
        lambda s, x: torch.batch_norm(
            s.conv(x), s.bn.weight, s.bn.bias, s.bn.running_mean, s.bn.running_var, False, 0.1, 1e-5, False
        ),
        conv=conv(), bn=nn.BatchNorm2d(4),
    )  # fmt: skip


@pytest.mark.parametrize(("make", "shape"), [(plain, IMAGE), (linear, (3, 5)), (called, IMAGE)])
def test_parameters_side_by_side_in_one_tensor_fold(make, shape, randomised, relative_error):
    net = randomised(make())
    apart = fold(copy.deepcopy(net), shape).ledger
    net = flattened(net)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    folded = fold(net, shape)
    assert folded.ledger.folded == apart.folded == len(apart.entries)
    assert [entry.into for entry in folded.ledger.entries] == [entry.into for entry in apart.entries]
    assert relative_error(net, folded.model, *shape) < 1e-6
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    folded.model.requires_grad_(False)
    for parameter in folded.model.parameters():
        parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_running_statistics_in_one_tensor_fold(randomised, relative_error):
    net = randomised(nn.Sequential(conv(), nn.BatchNorm2d(4)))
    flat = torch.cat([net[1].running_mean, net[1].running_var])
    net[1].running_mean, net[1].running_var = flat[:4], flat[4:]
    folded = fold(net, IMAGE)
    assert folded.ledger.folded == 1
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


@pytest.mark.parametrize("start", [0, 3, 107])
def test_parameters_that_have_numbers_in_common_stay(start, randomised, relative_error):
    net = randomised(nn.Sequential(conv(bias=False), nn.BatchNorm2d(4), nn.Tanh(), conv(4, 4, bias=False)))
    flat = torch.randn(400)
    net[0].weight.data = flat[:108].view(4, 3, 3, 3)
    net[3].weight.data = flat[start : start + 144].view(4, 4, 3, 3)
    folded = fold(net, IMAGE)
    (entry,) = folded.ledger.entries
    assert entry.verdict == "kept"
    assert "shares its memory with other parameters: 0.weight, 3.weight" in entry.reason
    assert relative_error(net, folded.model, *IMAGE) == 0


def test_a_parameter_behind_another_one_folds(randomised):
    net = randomised(nn.Sequential(conv(bias=False), nn.BatchNorm2d(4), nn.Tanh(), conv(4, 4, bias=False)))
    flat = torch.randn(400)
    net[0].weight.data = flat[:108].view(4, 3, 3, 3)
    net[3].weight.data = flat[108 : 108 + 144].view(4, 4, 3, 3)
    assert fold(net, IMAGE).ledger.folded == 1


def test_weights_that_the_code_cuts_out_of_one_parameter_stay(randomised, relative_error):
    net = Functional(
        lambda s, x: s.bn(torch.conv2d(x, s.flat[:108].view(4, 3, 3, 3))) * s.flat[108:], bn=nn.BatchNorm2d(4)
    )
    net.flat = nn.Parameter(torch.randn(109))
    folded = fold(randomised(net), IMAGE)
    (entry,) = folded.ledger.entries
    assert "is a part or a view of the parameter flat" in entry.reason
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_a_square_weight_held_by_its_transpose_is_told_from_itself(randomised, relative_error):
    """Two parameters over the same numbers, one the transpose of the other."""
    net = randomised(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 4)))
    net[3].weight.data = net[0].weight.data.t()
    folded = fold(net, (3, 4))
    assert folded.ledger.entries[0].verdict == "kept"
    assert relative_error(net, folded.model, 3, 4) == 0


RETURNED = {
    "the running mean": (lambda s: s.bn.running_mean, "its running_mean is an output of the network"),
    "a view of it": (lambda s: s.bn.running_mean.view(2, 2).t(), "its running_mean is an output of"),
    "a part of it": (lambda s: s.bn.running_mean[2:], "its running_mean is an output of the network"),
    "gamma": (lambda s: s.bn.weight, "its weight is an output of the network"),
    "the weight of the layer": (
        lambda s: s.conv.weight,
        "the weight of conv#1:convolution.1 is an output of",
    ),
    "its transpose": (lambda s: s.conv.weight.mT, "the weight of conv#1:convolution.1 is an output of"),
    "its bias": (lambda s: s.conv.bias, "the bias of conv#1:convolution.1 is an output of the network"),
}


@pytest.mark.parametrize("name", RETURNED)
def test_tensors_that_the_network_returns_stay(name, randomised, relative_error):
    returned, reason = RETURNED[name]
    net = Functional(lambda s, x: (s.bn(s.conv(x)), returned(s)), conv=conv(), bn=nn.BatchNorm2d(4))
    folded = fold(randomised(net), IMAGE)
    (entry,) = folded.ledger.entries
    assert entry.verdict == "kept"
    assert reason in entry.reason
    assert relative_error(net, folded.model, *IMAGE) == 0


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (lambda s: s.bn.running_mean[1:], "its running_mean is an output of the network"),
        (lambda s: s.bn.bias, "its bias is an output of the network"),
        (lambda s: s.bn.weight.sum(), "its weight is also read by self#1:sum.1"),
        (lambda s: s.bn.running_var.view(2, 2) + 1, "its running_var is also read by self#1:add.1"),
    ],
)
def test_frozen_batch_norms_whose_numbers_others_read_stay(read, reason, randomised, relative_error):
    net = Functional(lambda s, x: (s.bn(s.conv(x)), read(s)), conv=conv(), bn=FrozenBatchNorm2d(4))
    folded = fold(randomised(net), IMAGE)
    (entry,) = folded.ledger.entries
    assert (entry.verdict, entry.reason) == ("kept", reason)
    assert relative_error(net, folded.model, *IMAGE) == 0


def test_a_kept_batch_norm_whose_gamma_is_returned_takes_nothing_in(randomised, relative_error):
    def forward(s, x):
        y = s.b(s.conv(s.a(x.relu())))
        return y, s.b.weight

    net = Functional(forward, a=nn.BatchNorm2d(3), conv=nn.Conv2d(3, 4, 1), b=nn.BatchNorm2d(4))
    folded = fold(randomised(net), IMAGE)
    assert [entry.verdict for entry in folded.ledger.entries] == ["folded", "kept"]
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_a_batch_norm_before_one_whose_gamma_is_returned_does_not_go_into_that(randomised, relative_error):
    def forward(s, x):
        return s.conv(s.b(s.a(x.relu()).transpose(2, 3))), s.b.weight

    net = Functional(forward, a=nn.BatchNorm2d(3), b=nn.BatchNorm2d(3), conv=nn.Conv2d(3, 4, 1))
    folded = fold(randomised(net), IMAGE)
    assert [entry.verdict for entry in folded.ledger.entries] == ["kept", "kept"]
    assert not any("taken back" in entry.reason for entry in folded.ledger.entries)
    assert relative_error(net, folded.model, *IMAGE) == 0


def test_a_flat_tensor_that_the_code_reads_too_stays_right(randomised, relative_error):
    """After a copy, a parameter and the plain tensor that it was a part of are two."""
    net = Functional(
        lambda s, x: s.bn(torch.conv2d(x, s.flat[:108].view(4, 3, 3, 3), padding=1)) + s.conv(x),
        conv=conv(bias=False), bn=nn.BatchNorm2d(4),
    )  # fmt: skip
    net.flat = torch.randn(200, dtype=torch.float64)
    net.conv.weight.data = net.flat[:108].view(4, 3, 3, 3)
    net = randomised(net).double()
    assert relative_error(net, fold(net, IMAGE).model, *IMAGE) < 1e-12
