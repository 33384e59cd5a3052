"""Micro networks: what folds, what stays and why; every one compared in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.fold import FoldedBatchNorm, fold
from fold.nets import IMAGE, Functional, conv, fold_in_float64

CONVS = {
    "conv1d": (lambda bias: nn.Conv1d(3, 5, 3, bias=bias), nn.BatchNorm1d, (2, 3, 9)),
    "conv1d-C==L": (lambda bias: nn.Conv1d(5, 5, 3, padding=1, bias=bias), nn.BatchNorm1d, (5, 5, 5)),
    "conv2d": (lambda bias: nn.Conv2d(3, 5, 3, stride=2, bias=bias), nn.BatchNorm2d, (2, 3, 9, 7)),
    "conv2d-square": (lambda bias: nn.Conv2d(4, 4, 3, padding=1, bias=bias), nn.BatchNorm2d, (4, 4, 4, 4)),
    "conv2d-groups": (lambda bias: nn.Conv2d(4, 6, 3, groups=2, bias=bias), nn.BatchNorm2d, (2, 4, 9, 7)),
    "conv2d-depthwise": (lambda bias: nn.Conv2d(4, 8, 3, groups=4, bias=bias), nn.BatchNorm2d, (2, 4, 9, 7)),
    "conv2d-reflect": (
        lambda bias: nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect", bias=bias),
        nn.BatchNorm2d,
        (2, 3, 9, 7),
    ),
    "conv3d": (lambda bias: nn.Conv3d(2, 3, 2, bias=bias), nn.BatchNorm3d, (2, 2, 4, 5, 3)),
    "transposed1d": (lambda bias: nn.ConvTranspose1d(3, 5, 3, bias=bias), nn.BatchNorm1d, (2, 3, 9)),
    "transposed2d": (
        lambda bias: nn.ConvTranspose2d(3, 5, 3, stride=2, bias=bias),
        nn.BatchNorm2d,
        (2, 3, 5, 4),
    ),
    "transposed2d-square": (
        lambda bias: nn.ConvTranspose2d(4, 4, 3, bias=bias),
        nn.BatchNorm2d,
        (2, 4, 5, 4),
    ),
    "transposed2d-groups": (
        lambda bias: nn.ConvTranspose2d(4, 6, 3, groups=2, bias=bias),
        nn.BatchNorm2d,
        (2, 4, 5, 4),
    ),
    "transposed2d-groups-square": (
        lambda bias: nn.ConvTranspose2d(4, 4, 3, groups=2, bias=bias),
        nn.BatchNorm2d,
        (2, 4, 5, 4),
    ),
    "transposed2d-depthwise": (
        lambda bias: nn.ConvTranspose2d(4, 8, 3, groups=4, bias=bias),
        nn.BatchNorm2d,
        (2, 4, 5, 4),
    ),
    "transposed3d": (lambda bias: nn.ConvTranspose3d(2, 3, 2, bias=bias), nn.BatchNorm3d, (1, 2, 3, 4, 2)),
    "linear": (lambda bias: nn.Linear(3, 5, bias=bias), nn.BatchNorm1d, (6, 3)),
    "linear-square": (lambda bias: nn.Linear(5, 5, bias=bias), nn.BatchNorm1d, (5, 5)),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("case", CONVS)
def test_layer_then_batch_norm_folds(case, bias, randomised, relative_error):
    layer, norm, shape = CONVS[case]
    layer = layer(bias)
    channels = getattr(layer, "out_channels", None) or layer.out_features
    net = randomised(nn.Sequential(layer, norm(channels), nn.ReLU(inplace=True)))
    folded = fold(net, shape)
    assert [(e.address, e.verdict, e.into) for e in folded.ledger.entries] == [("1#1", "folded", "0#1")]
    assert folded.ledger.entries[0].max_error < 1e-12
    assert isinstance(folded.model[1], FoldedBatchNorm)
    assert folded.proof.passed
    assert folded.max_error < 1e-12
    assert relative_error(net, folded.model, *shape) < 1e-6  # the weights are float32 now
    assert fold_in_float64(net, shape, relative_error) < 1e-12


def both(self, x):
    y = self.conv(x)
    return self.bn(y), y


STAYS = {
    "bn first": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), conv()),
        IMAGE,
        "its shift can't go back: its input is an input of the network",
    ),
    "relu between": (
        lambda: nn.Sequential(conv(), nn.ReLU(), nn.BatchNorm2d(4)),
        IMAGE,
        "its sign can't go back: 1#1:relu.1 passes a positive scale only; nor on: the output of "
        "2#1:batch_norm.1 is an output of the network (gamma isn't positive in 2 of 4 channels)",
    ),
    "cat": (
        lambda: Functional(
            lambda s, x: s.bn(torch.cat([s.conv(x), x], 1)), conv=conv(), bn=nn.BatchNorm2d(7)
        ),
        IMAGE,
        "its input comes from self#1:cat.1, which has no weights",
    ),
    "output used twice": (
        lambda: Functional(lambda s, x: s.bn(y := s.conv(x)) + y, conv=conv(), bn=nn.BatchNorm2d(4)),
        IMAGE,
        "the output of conv#1:convolution.1 is also read by self#1:add.1",
    ),
    "output returned": (
        lambda: Functional(both, conv=conv(), bn=nn.BatchNorm2d(4)),
        IMAGE,
        "the output of conv#1:convolution.1 is an output of the network",
    ),
    "output averaged too": (
        lambda: Functional(lambda s, x: s.bn(y := s.conv(x)) * y.mean(), conv=conv(), bn=nn.BatchNorm2d(4)),
        IMAGE,
        "also read by self#1:mean.1",
    ),
    "conv called twice": (
        lambda: Functional(lambda s, x: s.bn(s.conv(x)) + s.conv(x), conv=conv(), bn=nn.BatchNorm2d(4)),
        IMAGE,
        "the layer of conv#1:convolution.1 is also called at conv#2:convolution.1",
    ),
    "linear of sequences": (
        lambda: Functional(lambda s, x: s.bn(s.fc(x)), fc=nn.Linear(3, 5), bn=nn.BatchNorm1d(4)),
        (2, 4, 3),
        "aren't those that it normalises",
    ),
    "linear of sequences, C==L": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)),
        (2, 4, 3),
        "aren't those that it normalises",
    ),
    "linear of sequences, C==L, no bias": (
        lambda: nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4)),
        (4, 4, 4),
        "aren't those that it normalises",
    ),
    "linear of samples as channels": (
        lambda: Functional(lambda s, x: s.bn(s.fc(x).t()), fc=nn.Linear(4, 4), bn=nn.BatchNorm1d(4)),
        (4, 4),
        "aren't those that it normalises",
    ),
    "no running statistics": (
        lambda: nn.Sequential(conv(), nn.BatchNorm2d(4, track_running_stats=False)),
        IMAGE,
        "no running statistics",
    ),
    "weight norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(conv()), nn.BatchNorm2d(4)),
        IMAGE,
        "isn't a parameter but computed by 0.parametrizations.weight.0#1:_weight_norm",
    ),
    "function with bare weights": (
        lambda: Functional(
            lambda s, x: s.bn(F.conv2d(x, s.weight)),
            weight=nn.Parameter(torch.randn(4, 3, 3, 3)),
            bn=nn.BatchNorm2d(4),
        ),
        IMAGE,
        "has no bias, and its module no empty one",
    ),
    "part of a parameter": (
        lambda: Functional(
            lambda s, x: s.bn(F.conv2d(x, s.conv.weight[:4], s.conv.bias[:4])),
            conv=conv(3, 6),
            bn=nn.BatchNorm2d(4),
        ),
        IMAGE,
        "is a part or a view of the parameter conv.weight",
    ),
}


@pytest.mark.parametrize("case", STAYS)
def test_what_cannot_fold_stays_with_its_reason(case, randomised, relative_error):
    build, shape, reason = STAYS[case]
    net = randomised(build())
    folded = fold(net, shape)
    assert folded.ledger.folded == 0
    assert reason in folded.ledger.entries[0].reason, folded.ledger.entries
    assert relative_error(net, folded.model, *shape) < 1e-6
    if folded.ledger.partial == 0:
        assert relative_error(net, folded.model, *shape) == 0


def test_tied_weights_part_where_only_one_is_folded(randomised, relative_error):
    net = Functional(lambda s, x: s.b(s.bn(s.a(x))), a=conv(3, 3), b=conv(3, 3), bn=nn.BatchNorm2d(3))
    net.b.weight = net.a.weight
    folded = fold(randomised(net), IMAGE)
    assert folded.ledger.folded == 1
    assert "a.weight parts from b.weight" in folded.ledger.entries[0].reason
    assert torch.equal(folded.model.b.weight, net.b.weight)
    assert net.a.weight is net.b.weight
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_weight_tied_to_a_module_that_does_not_run_parts(randomised, relative_error):
    net = Functional(lambda s, x: s.bn(s.a(x)), a=conv(), b=conv(), bn=nn.BatchNorm2d(4))
    net.b.weight = net.a.weight
    folded = fold(randomised(net), IMAGE)
    assert folded.ledger.folded == 1
    assert torch.equal(folded.model.b.weight, net.b.weight)
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_one_module_under_two_names_folds(randomised, relative_error):
    net = Functional(lambda s, x: s.bn(s.a(x)), a=conv(), bn=nn.BatchNorm2d(4))
    net.alias, net.norm = net.a, net.bn
    folded = fold(randomised(net), IMAGE)
    assert folded.ledger.folded == 1
    assert folded.model.alias is folded.model.a
    assert folded.model.norm is folded.model.bn
    assert isinstance(folded.model.bn, FoldedBatchNorm)
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_shared_bias_parts(randomised, relative_error):
    net = Functional(lambda s, x: s.b(s.bn(s.a(x))), a=conv(3, 3), b=conv(3, 3), bn=nn.BatchNorm2d(3))
    net.b.bias = net.a.bias
    folded = fold(randomised(net), IMAGE)
    assert "a.bias parts from b.bias" in folded.ledger.entries[0].reason
    assert torch.equal(folded.model.b.bias, net.b.bias)
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_one_batch_norm_after_two_convolutions_folds_into_both(randomised, relative_error):
    net = Functional(
        lambda s, x: s.bn(s.b(s.bn(s.a(x)))), a=conv(3, 3), b=conv(3, 3, bias=False), bn=nn.BatchNorm2d(3)
    )
    folded = fold(randomised(net), IMAGE)
    assert [(e.address, e.verdict, e.into) for e in folded.ledger.entries] == [
        ("bn#1", "folded", "a#1"),
        ("bn#2", "folded", "b#1"),
    ]
    assert folded.model.bn.into == ("a#1", "b#1")
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_a_pair_called_twice_folds_once_for_both(randomised, relative_error):
    net = Functional(lambda s, x: s.bn(s.conv(s.bn(s.conv(x)))), conv=conv(3, 3), bn=nn.BatchNorm2d(3))
    folded = fold(randomised(net), IMAGE)
    assert [(entry.verdict, entry.into) for entry in folded.ledger.entries] == [("folded", "conv#1")] * 2
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_batch_norm_called_twice_folds_for_both_or_neither(randomised, relative_error):
    net = Functional(lambda s, x: s.bn(F.relu(s.bn(s.a(x)))), a=conv(3, 3), bn=nn.BatchNorm2d(3))
    folded = fold(randomised(net), IMAGE)
    assert [entry.verdict for entry in folded.ledger.entries] == ["kept", "kept"]
    assert all("passes a positive scale only" in entry.reason for entry in folded.ledger.entries)
    assert relative_error(net, folded.model, *IMAGE) == 0


def test_batch_norm_of_batch_norm_folds_into_the_same_layer(randomised, relative_error):
    net = randomised(nn.Sequential(conv(), nn.BatchNorm2d(4), nn.BatchNorm2d(4)))
    folded = fold(net, IMAGE)
    assert [(entry.verdict, entry.into) for entry in folded.ledger.entries] == [("folded", "0#1")] * 2
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_batch_norm_of_a_kept_batch_norm_folds_into_it(randomised, relative_error):
    net = randomised(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.ReLU()))
    folded = fold(net, IMAGE)
    assert sorted(entry.verdict for entry in folded.ledger.entries) == ["folded", "kept"]
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


@pytest.mark.parametrize(
    ("between", "option"),
    [(nn.Identity(), {}), (nn.Dropout(0.5), {}), (nn.Dropout2d(0.5), {"inplace": True})],
)
def test_what_computes_nothing_is_looked_through(between, option, randomised, relative_error):
    net = randomised(nn.Sequential(conv(), between, nn.BatchNorm2d(4)))
    folded = fold(net, IMAGE)
    assert folded.ledger.folded == 1
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_a_copy_is_looked_through(randomised, relative_error):
    net = Functional(lambda s, x: s.bn(s.conv(x).clone()), conv=conv(), bn=nn.BatchNorm2d(4))
    folded = fold(randomised(net), IMAGE)
    assert folded.ledger.folded == 1
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_a_copy_whose_original_is_used_stays(randomised):
    net = Functional(lambda s, x: s.bn((y := s.conv(x)).clone()) * y, conv=conv(), bn=nn.BatchNorm2d(4))
    assert "self#1:mul.1 multiplies by it" in fold(randomised(net), IMAGE).ledger.entries[0].reason


def test_a_constant_factor_in_place_lets_a_batch_norm_through(randomised, relative_error):
    net = Functional(lambda s, x: s.bn(s.conv(x).mul_(2)), conv=conv(), bn=nn.BatchNorm2d(4))
    folded = fold(randomised(net), IMAGE)
    assert folded.ledger.entries[0].into == "conv#1"
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_written_through_a_view_before_the_batch_norm_stays(randomised, relative_error):
    def forward(self, x):
        y = self.conv(x)
        y[:, 0].zero_()
        return self.bn(y)

    net = Functional(forward, conv=conv(), bn=nn.BatchNorm2d(4))
    folded = fold(randomised(net), IMAGE)
    assert folded.ledger.kept == 1
    assert relative_error(net, folded.model, *IMAGE) == 0


def test_functional_convolution_with_module_parameters_folds(randomised, relative_error):
    net = Functional(
        lambda s, x: s.bn(input=F.conv2d(x, s.conv.weight, s.conv.bias, padding=1)),
        conv=conv(),
        bn=nn.BatchNorm2d(4),
    )
    folded = fold(randomised(net), IMAGE)
    assert folded.ledger.entries[0].into == "self#1:convolution.1"
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_matrix_product_without_transpose_folds(randomised, relative_error):
    net = Functional(
        lambda s, x: s.bn(torch.addmm(s.bias, x, s.weight)),
        weight=nn.Parameter(torch.randn(4, 4)), bias=nn.Parameter(torch.randn(4)), bn=nn.BatchNorm1d(4),
    )  # fmt: skip
    folded = fold(randomised(net), (6, 4))
    assert folded.ledger.folded == 1
    assert relative_error(net, folded.model, 6, 4) < 1e-6


def test_weight_as_the_left_operand_stays(randomised, relative_error):
    """W x is (out, N): its rows, not its columns, belong to an output feature."""
    net = Functional(
        lambda s, x: s.bn(torch.mm(s.weight, x)), weight=nn.Parameter(torch.randn(4, 4)), bn=nn.BatchNorm1d(4)
    )
    folded = fold(randomised(net), (4, 4))
    assert folded.ledger.kept == 1
    assert relative_error(net, folded.model, 4, 4) == 0


def test_path_that_depends_on_data_stays(randomised):
    net = Functional(
        lambda s, x: s.bn(s.conv(x)) if x.sum().item() > 0 else s.conv(x), conv=conv(), bn=nn.BatchNorm2d(4)
    )
    assert fold(randomised(net), IMAGE).ledger.entries[0].reason == "bn#1 runs on 1 of the 2 recorded paths"


def test_batch_norm_that_does_not_run_is_listed(randomised):
    net = Functional(lambda s, x: s.bn(s.conv(x)), conv=conv(), bn=nn.BatchNorm2d(4), idle=nn.BatchNorm2d(2))
    folded = fold(randomised(net), IMAGE)
    assert (folded.ledger.entries[1].address, folded.ledger.entries[1].reason) == (
        "idle",
        "wasn't called on these inputs",
    )


@pytest.mark.parametrize(("start", "verdict"), [(108, "folded"), (54, "kept")])
def test_weights_over_one_memory_fold_if_they_lie_apart(start, verdict, randomised, relative_error):
    net = Functional(lambda s, x: s.bn(s.a(x)) + s.b(x), a=conv(), b=conv(), bn=nn.BatchNorm2d(4))
    net.double()
    memory = torch.randn(216, dtype=torch.float64)
    for layer, first in ((net.a, 0), (net.b, start)):
        layer.weight = nn.Parameter(memory[first : first + 108].view(4, 3, 3, 3))
    folded = fold(randomised(net), IMAGE)
    (entry,) = folded.ledger.entries
    assert entry.verdict == verdict
    assert ("shares its memory with other parameters: a.weight, b.weight" in entry.reason) == (start < 108)
    assert relative_error(net, folded.model, *IMAGE) < 1e-12


class Standardised(nn.Module):
    """Weights standardised by the batch norm operator, an instance norm, and a batch norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = conv(4, 4), nn.BatchNorm2d(4)
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

    def forward(self, x):
        weight = F.batch_norm(self.weight.reshape(1, 4, -1), None, None, training=True)
        x = F.instance_norm(F.conv2d(x, weight.reshape_as(self.weight)))
        return self.bn(self.conv(x))


@pytest.mark.parametrize("number", [1, 2])
def test_what_is_no_batch_norm_is_not_in_the_ledger(number, randomised):
    ledger = fold(randomised(Standardised()), (number, *IMAGE[1:])).ledger
    assert [(entry.address, entry.verdict) for entry in ledger.entries] == [("bn#1", "folded")]
