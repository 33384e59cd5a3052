"""Shifts before zero padding: the folded network against the one it was made from, in float64."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.fold import fold
from convscope.fold.layers.border import ZeroBorder
from convscope.fold.layers.bordered import (
    Conv2dWithBiasMap,
    Conv2dWithBorder,
    OtherSize,
    PadWithBorder,
)
from fold.nets import Functional

CONVS = {
    "1d": (lambda: nn.Conv1d(3, 4, 3, padding=1), nn.BatchNorm1d, (2, 3, 7)),
    "1d-even": (lambda: nn.Conv1d(4, 4, 4, padding=2), nn.BatchNorm1d, (4, 4, 4)),
    "2d": (lambda: nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d, (2, 3, 6, 7)),
    "2d-no-bias": (lambda: nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d, (2, 3, 6, 7)),
    "2d-square": (lambda: nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d, (4, 4, 4, 4)),
    "2d-uneven-padding": (lambda: nn.Conv2d(3, 4, (3, 5), padding=(0, 2)), nn.BatchNorm2d, (2, 3, 6, 7)),
    "2d-1x1-padded": (lambda: nn.Conv2d(3, 4, 1, padding=1), nn.BatchNorm2d, (2, 3, 6, 7)),
    "2d-wide-padding": (lambda: nn.Conv2d(3, 4, 2, padding=3), nn.BatchNorm2d, (2, 3, 2, 3)),
    "2d-stride": (lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d, (2, 3, 7, 8)),
    "2d-stride-dilation": (
        lambda: nn.Conv2d(3, 4, (3, 2), stride=(2, 3), dilation=(2, 1), padding=(2, 1)),
        nn.BatchNorm2d,
        (2, 3, 7, 8),
    ),
    "2d-groups": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), nn.BatchNorm2d, (2, 4, 5, 5)),
    "2d-depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, padding=1), nn.BatchNorm2d, (4, 4, 4, 4)),
    "2d-multiplier": (lambda: nn.Conv2d(4, 8, 3, groups=4, padding=1), nn.BatchNorm2d, (2, 4, 5, 6)),
    "2d-same": (lambda: nn.Conv2d(3, 4, 3, padding="same"), nn.BatchNorm2d, (2, 3, 6, 7)),
    "2d-same-even": (lambda: nn.Conv2d(3, 4, (2, 4), padding="same"), nn.BatchNorm2d, (2, 3, 6, 7)),
    "2d-same-mixed": (lambda: nn.Conv2d(3, 4, (3, 4), padding="same"), nn.BatchNorm2d, (2, 3, 6, 7)),
    "3d": (lambda: nn.Conv3d(2, 3, (3, 2, 1), padding=(1, 1, 0)), nn.BatchNorm3d, (2, 2, 4, 5, 3)),
    "3d-same-even": (lambda: nn.Conv3d(2, 3, 2, padding="same"), nn.BatchNorm3d, (1, 2, 4, 5, 3)),
    "2d-zero-pad": (
        lambda: nn.Sequential(nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(3, 4, 3)),
        nn.BatchNorm2d,
        (2, 3, 6, 7),
    ),
    "1d-constant-pad": (
        lambda: nn.Sequential(nn.ConstantPad1d((2, 0), 0.0), nn.Conv1d(3, 4, 3)),
        nn.BatchNorm1d,
        (2, 3, 6),
    ),
    "3d-zero-pad": (
        lambda: nn.Sequential(nn.ZeroPad3d((0, 1, 1, 0, 2, 0)), nn.Conv3d(2, 3, 2)),
        nn.BatchNorm3d,
        (1, 2, 4, 5, 3),
    ),
}


def before_zeros(build, norm, channels):
    """Nothing but the layer behind the batch norm can take it in."""
    return nn.Sequential(nn.ReLU(), norm(channels), build(), nn.Tanh())


@pytest.mark.parametrize("border", ["map", "pad"])
@pytest.mark.parametrize("case", CONVS)
def test_shift_goes_into_a_layer_that_pads_with_zeros(case, border, randomised):
    build, norm, shape = CONVS[case]
    net = randomised(before_zeros(build, norm, shape[1])).double()
    kept = fold(net, shape)
    assert [entry.verdict for entry in kept.ledger.entries] == ["partial"]
    assert f"border='{border}'" in kept.ledger.entries[0].remedy
    folded = fold(net, shape, border=border)
    assert [(entry.address, entry.verdict, entry.remedy) for entry in folded.ledger.entries] == [
        ("1#1", "folded", "")
    ]
    for number in (shape[0], 3):
        x = torch.randn(number, *shape[1:], dtype=torch.float64)
        expected = net[:3](x)
        assert torch.allclose(folded.model[:3](x), expected, rtol=0, atol=1e-12 * expected.abs().max().item())


@pytest.mark.parametrize("case", [case for case in CONVS if "zero-pad" in case or "constant" in case])
@pytest.mark.parametrize("border", ["map", "pad"])
def test_padding_modules_pad_with_the_shift_and_any_size(case, border, randomised):
    build, norm, shape = CONVS[case]
    net = randomised(before_zeros(build, norm, shape[1])).double()
    folded = fold(net, shape, border=border).model
    assert isinstance(folded[2][0], PadWithBorder)
    x = torch.randn(2, shape[1], *(size + 3 for size in shape[2:]), dtype=torch.float64)
    assert torch.allclose(folded(x), net(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", ["1d", "2d-stride", "2d-same-even", "2d-stride-dilation", "3d"])
def test_padding_with_the_shift_serves_any_size(case, randomised):
    build, norm, shape = CONVS[case]
    net = randomised(before_zeros(build, norm, shape[1])).double()
    folded = fold(net, shape, border="pad")
    assert any(trial != str(shape) for trial in folded.proof.trials)
    for growth in (1, 2, 5):
        x = torch.randn(2, shape[1], *(size + growth for size in shape[2:]), dtype=torch.float64)
        assert torch.allclose(folded.model(x), net(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(7, 9), (8, 8), (5, 8), (8, 5)])
def test_a_bias_map_serves_one_size_and_says_so(height, width, randomised):
    """Sizes 7 and 8 have outputs of one size at stride 2, and other borders."""
    net = randomised(before_zeros(lambda: nn.Conv2d(3, 4, 3, 2, padding=1), nn.BatchNorm2d, 3)).double()
    folded = fold(net, (2, 3, 7, 8), border="map").model
    with pytest.raises(ConvscopeError) as error:
        folded(torch.randn(2, 3, height, width, dtype=torch.float64))
    assert str(error.value) == (
        f"2: an input of size {height}×{width}; expected 7×8, for which the bias of each position was "
        "computed; fold for this size, or for any size with fold(..., border='pad')"
    )


def test_the_proof_passes_over_other_sizes(randomised):
    net = randomised(before_zeros(*CONVS["2d"][:2], 3))
    proof = fold(net, (2, 3, 6, 7), border="map").proof
    assert proof.passed
    assert len(proof.trials) == 3
    assert all("3, 6, 7)" in trial for trial in proof.trials)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("border", ["map", "pad"])
def test_the_layer_stays_what_it_was(border, randomised):
    net = randomised(before_zeros(*CONVS["2d"][:2], 3))
    net[2].requires_grad_(False)
    net[2].note = "mine"
    folded = fold(net, (2, 3, 6, 7), border=border).model
    layer = folded[2]
    assert isinstance(layer, nn.Conv2d)
    assert type(layer) is {"map": Conv2dWithBiasMap, "pad": Conv2dWithBorder}[border]
    assert {"weight", "bias"} <= set(layer.state_dict()) <= {"weight", "bias", "border"}
    assert (layer.note, layer.training, layer.weight.requires_grad) == ("mine", False, False)
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    x = torch.randn(2, 3, 6, 7)
    y = folded(x)
    again = fold(net, (2, 3, 6, 7), border=border).model
    for twin in (
        copy.deepcopy(folded),
        torch.jit.script(folded),
        torch.export.export(folded, (x,)).module(),
        torch.load(_saved(folded), weights_only=False),
        again,
    ):
        assert torch.equal(twin(x), y)
    again[2].weight.data.zero_()
    again.load_state_dict(folded.state_dict())
    assert torch.equal(again(x), y)
    assert torch.allclose(layer(net[0](x[0])), layer(net[0](x))[0])
    assert type(net[2]) is nn.Conv2d


def _saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return file


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_scripts_refuse_other_sizes_too(randomised):
    folded = fold(randomised(before_zeros(*CONVS["2d"][:2], 3)), (2, 3, 6, 7), border="map").model
    with pytest.raises(Exception, match="_refuse"):
        torch.jit.script(folded)(torch.randn(2, 3, 6, 8))


@pytest.mark.parametrize("border", ["map", "pad"])
def test_a_folded_border_learns(border, randomised):
    folded = fold(randomised(before_zeros(*CONVS["2d"][:2], 3)), (2, 3, 6, 7), border=border).model
    x = torch.randn(2, 3, 6, 7, requires_grad=True)
    folded(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in folded[2].parameters())


@pytest.mark.parametrize("border", ["map", "pad"])
def test_half_precision_is_computed_wide_and_cast_once(border, randomised):
    net = randomised(before_zeros(*CONVS["2d"][:2], 3)).to(torch.bfloat16)
    folded = fold(net, (2, 3, 6, 7), border=border).model
    assert {tensor.dtype for tensor in folded.parameters()} == {torch.bfloat16}
    norm, conv = copy.deepcopy(net[1]).double(), copy.deepcopy(net[2]).double()
    with torch.no_grad():
        shift = norm(torch.zeros(1, 3, 6, 7, dtype=torch.float64))
        scale = norm(torch.ones(1, 3, 6, 7, dtype=torch.float64)) - shift
        assert torch.equal(folded[2].weight, (conv.weight * scale[:, :, :1, :1]).to(torch.bfloat16))
        if border == "map":
            assert torch.equal(folded[2].bias, conv(shift).to(torch.bfloat16))
        else:
            zero = -shift[0, :, :1, :1] / scale[0, :, :1, :1]
            assert torch.equal(folded[2].border, zero.to(torch.bfloat16))


def test_nothing_changes_where_the_shift_can_go_elsewhere(randomised):
    """A batch norm between two convolutions goes into the first one, which needs no border."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1))
    folded = fold(randomised(net), (2, 3, 8, 7), border="map")
    assert folded.ledger.folded == 1
    assert {type(module) for module in (folded.model[0], folded.model[2])} == {nn.Conv2d}


class Padded(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, self.stride, 1)


STAYS = {
    "own forward": (lambda: Padded(3, 4, 3), "in code of its own (Padded)"),
    "function": (
        lambda: Functional(
            lambda s, x: F.conv2d(x, s.conv.weight, s.conv.bias, padding=1), conv=nn.Conv2d(3, 4, 3)
        ),
        "in code of its own (Functional)",
    ),
    "padding function": (
        lambda: Functional(lambda s, x: s.conv(F.pad(x, (1, 1, 1, 1))), conv=nn.Conv2d(3, 4, 3)),
        "pads with zeros, which no shift moves",
    ),
    "padding called twice": (
        lambda: Functional(
            lambda s, x: s.conv(s.pad(s.pad(x))), pad=nn.ZeroPad2d(1), conv=nn.Conv2d(3, 4, 3)
        ),
        "is called more than once",
    ),
    "crop": (
        lambda: nn.Sequential(nn.ZeroPad2d((1, -1, 0, 0)), nn.Conv2d(3, 4, 3)),
        "cuts something off",
    ),
    "average pool": (lambda: nn.AvgPool2d(3, 1, padding=1), ""),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3, padding=1), "transposed convolution"),
}


@pytest.mark.parametrize("border", ["map", "pad"])
@pytest.mark.parametrize("case", STAYS)
def test_other_zeros_stay_with_their_reason(case, border, randomised, relative_error):
    build, reason = STAYS[case]
    net = randomised(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), build(), nn.Tanh()))
    folded = fold(net, (2, 3, 6, 7), border=border)
    assert folded.ledger.folded == 0
    assert reason in folded.ledger.entries[0].reason
    assert relative_error(net, folded.model, 2, 3, 6, 7) < 1e-6


def twice(self, x):
    y = self.bn(x)
    return torch.tanh(self.conv(y)).sum((2, 3)) + torch.tanh(self.conv(y[..., ::2])).sum((2, 3))


@pytest.mark.parametrize(("border", "verdict"), [("map", "partial"), ("pad", "folded")])
def test_one_layer_for_two_sizes_takes_no_map(border, verdict, randomised, relative_error):
    net = Functional(twice, bn=nn.BatchNorm2d(3), conv=nn.Conv2d(3, 4, 3, padding=1))
    folded = fold(randomised(net), (2, 3, 6, 8), border=border)
    assert [entry.verdict for entry in folded.ledger.entries] == [verdict]
    assert relative_error(net, folded.model, 2, 3, 6, 8) < 1e-6


def test_one_layer_called_with_and_without_zeros_takes_no_border(randomised, relative_error):
    def forward(self, x):
        y = self.bn(x)
        plain = F.conv2d(y, self.conv.weight, self.conv.bias)
        return torch.tanh(self.conv(y)).sum((2, 3)) + torch.tanh(plain).sum((2, 3))

    net = randomised(Functional(forward, bn=nn.BatchNorm2d(3), conv=nn.Conv2d(3, 4, 3, padding=1)))
    for border in ("map", "pad"):
        folded = fold(net, (2, 3, 6, 8), border=border)
        assert folded.ledger.folded == 0
        assert type(folded.model.conv) is nn.Conv2d
        assert relative_error(net, folded.model, 2, 3, 6, 8) < 1e-6


@pytest.mark.parametrize("border", ["map", "pad"])
def test_tied_and_renamed_layers(border, randomised, relative_error):
    def forward(self, x):
        return torch.tanh(self.a(self.bn(torch.relu(x)))) + torch.tanh(self.b(x))

    net = Functional(
        forward, bn=nn.BatchNorm2d(3), a=nn.Conv2d(3, 4, 3, padding=1), b=nn.Conv2d(3, 4, 3, padding=1)
    )
    net.b.weight, net.b.bias, net.alias = net.a.weight, net.a.bias, net.a
    folded = fold(randomised(net), (2, 3, 6, 7), border=border)
    assert folded.ledger.folded == 1
    assert folded.model.alias is folded.model.a
    assert torch.equal(folded.model.b.weight, net.b.weight)
    assert torch.equal(folded.model.b.bias, net.b.bias)
    assert net.a.weight is net.b.weight
    assert relative_error(net, folded.model, 2, 3, 6, 7) < 1e-6


@pytest.mark.parametrize("border", ["map", "pad"])
def test_merged_branches_and_borders(border, randomised, relative_error):
    """A RepVGG block behind a batch norm whose shift meets the zeros of one of its branches."""

    def forward(self, x):
        y = self.bn(torch.relu(x))
        return torch.tanh(self.a_bn(self.a(y)) + self.b_bn(self.b(y)) + self.c_bn(y))

    net = Functional(
        forward, bn=nn.BatchNorm2d(3), a=nn.Conv2d(3, 3, 3, padding=1), b=nn.Conv2d(3, 3, 1),
        a_bn=nn.BatchNorm2d(3), b_bn=nn.BatchNorm2d(3), c_bn=nn.BatchNorm2d(3),
    )  # fmt: skip
    folded = fold(randomised(net), (2, 3, 6, 7), border=border)
    assert folded.proof.passed
    assert folded.max_error < 1e-12
    assert relative_error(net, folded.model, 2, 3, 6, 7) < 1e-6


def test_sums_are_a_convolution_of_ones():
    """The oracle is PyTorch's own convolution of a constant image."""
    border = ZeroBorder("", "map", ((2, 1), (0, 3)), (5, 4), (3, 2), (2, 1), (1, 3))
    weight = torch.randn(4, 1, 3, 2, dtype=torch.float64)
    image = F.pad(torch.ones(1, 1, 5, 4, dtype=torch.float64), (0, 3, 2, 1))
    expected = F.conv2d(image, weight, stride=(2, 1), dilation=(1, 3))[0]
    assert torch.allclose(border.sums(weight.reshape(4, 6)), expected, rtol=0, atol=1e-14)


def test_other_size_is_an_error_of_this_library():
    assert issubclass(OtherSize, ConvscopeError)
