"""The table of reasons in ``docs/folding.md``: folds give each of them, and what is to be done helps."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import convscope as cs

PAGE = (Path(__file__).parents[2] / "docs" / "folding.md").read_text()
TABLE = PAGE.partition("## What the ledger says")[2].partition("\n### ")[0]
ROWS = [line.split("|")[1].strip() for line in TABLE.splitlines() if line.startswith("|")][2:]
SHAPE = (2, 4, 8, 8)
MIXED, POSITIVE = (0.5, -0.5, 2.0, 1.5), (0.5, 3.0, 2.0, 1.5)
NETWORKS = {}

turned = torch.library.custom_op(
    "fold_reasons::turned", lambda x: x.flip(1), mutates_args=(), schema="(Tensor x) -> Tensor"
)
turned.register_fake(torch.empty_like)


def reason(text):
    """Register the maker of a network that is folded with this reason."""

    def register(maker):
        NETWORKS[text] = maker
        return maker

    return register


def seq(*layers):
    return nn.Sequential(*layers)


def norm(**options):
    return nn.BatchNorm2d(4, **options)


def conv(kernel_size=1, **options):
    return nn.Conv2d(4, 4, kernel_size, **options)


class Net(nn.Module):
    """A network given by a function of itself and its input."""

    def __init__(self, run, **layers):
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.run(self, x)


@reason("the output of … is an output of the network")
@reason("its input is an input of the network or a constant")
def alone():
    return seq(norm())


@reason("its input comes from …, which has no weights to fold into")
@reason("… isn't linear per channel")
def between_activations():
    return seq(nn.SiLU(), norm(), nn.SiLU())


@reason("no rule for … at …")
def behind_another_library():
    return seq(conv(), Net(lambda _, x: torch.ops.fold_reasons.turned(x)), norm())


@reason("… passes no shift")
def between_relus():
    return seq(conv(), nn.ReLU(), norm(), nn.ReLU())


@reason("… passes a positive scale only")
def behind_a_max_pool():
    return seq(conv(), nn.MaxPool2d(2), norm())


@reason("… gave what it reads the other sign")
def behind_another_sign():
    def run(s, x):
        x = s.stem(x)
        x = x + s.conv(s.first(x).relu())
        return s.head(s.second(x).relu())

    net = Net(run, stem=conv(), first=norm(), conv=conv(), second=norm(), head=conv())
    with torch.no_grad():
        net.first.weight.copy_(torch.tensor([0.5, 0.5, 2.0, 1.5]))
        net.second.weight.copy_(torch.tensor([0.5, -0.5, 2.0, 1.5]))
    return net


@reason("its zeros can't go …: … (gamma is 0 in … channels…)")
def with_a_dead_gamma():
    net = seq(norm(), conv(3, padding=1))
    with torch.no_grad():
        net[0].bias.fill_(1)
        net[0].weight.copy_(torch.tensor([0.5, 0.0, 2.0, 1.5]))
    return net


@reason("… pads with zeros, where a shift would show")
def before_zero_padding():
    return seq(norm(), conv(3, padding=1))


@reason("… averages over zeros in its padding too")
def before_a_padded_average():
    return seq(norm(), nn.AvgPool2d(2, padding=1), conv())


@reason("… is a transposed convolution, whose outputs sum over unlike numbers of weights")
def before_a_transposed_convolution():
    return seq(norm(), nn.ConvTranspose2d(4, 4, 3))


@reason("… multiplies by another value")
def before_a_gate():
    return Net(lambda s, x: s.conv(s.bn(x) * x.mean((2, 3), keepdim=True)), bn=norm(), conv=conv())


@reason("the output of … is also read by …")
def read_twice():
    return Net(lambda s, x: s.bn(y := s.conv(x)) + y, conv=conv(), bn=norm())


@reason("the channels of … aren't those that it normalises")
def behind_another_axis():
    return Net(lambda s, x: s.bn(s.linear(x)), linear=nn.Linear(8, 8), bn=norm())


@reason("the layer of … is also called at …")
def behind_one_of_two_calls():
    return Net(lambda s, x: s.bn(s.conv(x)) + s.conv(x.flip(3)), conv=conv(), bn=norm())


@reason("the weight of … isn't a parameter but computed by …")
def behind_weight_norm():
    return seq(weight_norm(conv()), norm())


@reason("is in training mode, …")
def in_training_mode():
    return seq(conv(), norm())


@reason("has no running statistics, …")
def without_statistics():
    return seq(conv(), norm(track_running_stats=False))


@reason("its running statistics aren't finite: …")
def with_nan():
    net = seq(conv(), norm())
    net[1].running_var[1] = float("nan")
    return net


@reason("its running_var goes down to …, of which there is no square root")
def with_a_negative_variance():
    net = seq(conv(), norm())
    net[1].running_var[1] = -1
    return net


@reason("has hooks, which would see other values if it were folded")
def with_a_hook():
    net = seq(conv(), norm())
    net[1].register_forward_hook(lambda *_: None)
    return net


@reason("a hook of … sees the output of …")
def behind_a_hook():
    net = seq(conv(), norm(), nn.SiLU())
    net[0].register_forward_hook(lambda *_: None)
    return net


@reason("… is kept after the run, by a hook, an attribute or an output object")
def with_a_kept_value():
    def run(s, x):
        s.seen = s.conv(x)
        return s.bn(s.seen).relu()

    return Net(run, conv=conv(), bn=norm())


@reason("its … is also read by …")
def whose_gamma_is_read():
    def run(s, x):
        mean, var, gamma, beta = s.bn.running_mean, s.bn.running_var, s.bn.weight, s.bn.bias
        return F.batch_norm(s.conv(x), mean, var, gamma, beta) * gamma.sum()

    return Net(run, conv=conv(), bn=norm())


@reason("its … isn't a parameter or buffer, but computed in every run or a part of one")
def of_parts():
    def run(s, x):
        return F.batch_norm(s.conv(x), s.bn.running_mean[:4], s.bn.running_var[4:])

    return Net(run, conv=conv(), bn=nn.BatchNorm2d(8))


@reason("… runs on … of the … recorded paths")
def on_one_path():
    return Net(lambda s, x: s.bn(s.conv(x)) if x.mean() > 0 else x, conv=conv(), bn=norm())


@reason("… reads numbers out of tensors, which may decide what runs; …")
def behind_a_number():
    return Net(lambda s, x: s.bn(s.conv(x)) if x.sum().item() > -1e9 else x, conv=conv(), bn=norm())


@reason("wasn't called on these inputs")
def idle():
    return Net(lambda s, x: s.conv(x), conv=conv(), bn=norm())


@reason("… writes in place to what it would hand on")
def written_over():
    def run(s, x):
        y = s.conv(x)
        return torch.cat([s.bn(y).relu_(), s.other(y)], 1)

    return Net(run, conv=conv(), bn=norm(), other=conv())


@reason("the folded weights of … don't fit into their dtype")
def too_large():
    net = seq(conv(), norm())
    net[1].running_var.fill_(1e-4)
    return with_numbers(net, tuple(1000 * gamma for gamma in MIXED)).half()


class Strange(nn.Sequential):
    """Does something else once its batch norm is gone, which no recording shows."""

    def forward(self, x):
        return super().forward(x) if isinstance(self[1], nn.BatchNorm2d) else x


@reason("the fold can't be proved: …")
def that_gives_nothing_but_nan():
    net = seq(conv(), norm(), conv())
    with torch.no_grad():
        net[2].bias.fill_(float("nan"))
    return net


@reason("taken back: …")
def strange():
    return Strange(conv(), norm())


def with_numbers(net, gammas):
    """Give batch norms numbers as after training, where they have fresh ones."""
    for module in net.eval().modules():
        if isinstance(module, nn.BatchNorm2d) and module.weight.eq(1).all():
            module.weight.data.copy_(torch.tensor(gammas).repeat(2)[: module.num_features])
            nn.init.uniform_(module.bias, 1, 2)
            if module.running_mean is not None:
                module.running_mean.uniform_(-1, 1)
    return net


def test_every_reason_of_the_table_is_tried():
    assert sorted(ROWS) == sorted(NETWORKS)


@pytest.mark.parametrize("text", NETWORKS)
def test_a_reason_of_the_table_is_given(text):
    net = with_numbers(NETWORKS[text](), POSITIVE if "no shift" in text else MIXED)
    if "training mode" in text:
        net[1].train()
    pattern = ".*".join(re.escape(part) for part in text.split("…"))
    given = [entry.reason for entry in cs.fold(net, SHAPE).ledger.entries]
    assert any(re.search(pattern, each) for each in given), given


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (before_zero_padding, {"border": "map"}),
        (before_zero_padding, {"border": "pad"}),
        (behind_weight_norm, {"materialise": True}),
    ],
)
def test_what_can_be_asked_for_is_in_the_remedy_and_helps(make, options):
    net = with_numbers(make(), MIXED)
    (entry,) = cs.fold(net, SHAPE).ledger.entries
    assert all(f"{name}={value!r}" in entry.remedy for name, value in options.items())
    assert cs.fold(net, SHAPE, **options).ledger.folded == 1


def test_an_operator_without_a_rule_is_named_with_the_page_about_rules():
    (entry,) = cs.fold(with_numbers(behind_another_library(), MIXED), SHAPE).ledger.entries
    assert entry.reason.startswith(
        "its scale can't go back: no rule for fold_reasons_turned at 1#1:fold_reasons_turned.1;"
    )
    assert "weights to fold into" not in entry.reason
    assert entry.remedy == "tell what it passes: docs/extending/fold-rule.md"
    assert (Path(__file__).parents[2] / "docs" / "extending" / "fold-rule.md").exists()


def test_calls_that_are_to_be_made_first_are_in_the_remedy_and_help():
    net = with_numbers(in_training_mode(), MIXED)
    net[1].train()
    assert "eval()" in cs.fold(net, SHAPE).ledger.entries[0].remedy
    assert cs.fold(net.eval(), SHAPE).ledger.folded == 1
    (entry,) = cs.fold(without_statistics().eval(), SHAPE).ledger.entries
    assert "track_running_stats=True" in entry.remedy
    assert "recalibrate" in entry.remedy
    for net in (with_nan().eval(), seq(conv(), norm()).eval()):
        cs.norm.recalibrate(net, torch.randn(64, *SHAPE[1:]).split(8))
        assert cs.fold(net, SHAPE).ledger.folded == 1


@pytest.mark.parametrize(
    "mended",
    [
        lambda: seq(norm(), conv(3, padding=1, padding_mode="reflect")),
        lambda: seq(norm(), conv(3, padding=1, padding_mode="replicate")),
        lambda: seq(norm(), nn.AvgPool2d(2, padding=1, count_include_pad=False), conv()),
        lambda: Net(lambda s, x: s.bn(s.conv(x)) + s.more(x.flip(3)), conv=conv(), more=conv(), bn=norm()),
        lambda: seq(nn.SiLU(), conv(), norm(), nn.SiLU()),
    ],
)
def test_other_designs_that_the_table_names_fold(mended):
    assert cs.fold(with_numbers(mended(), MIXED), SHAPE).ledger.folded == 1
