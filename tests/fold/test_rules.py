"""Scaled weights against explicit loops over output channels, and against PyTorch's own fusion."""

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from convscope.fold import RULES, fold
from convscope.tape import record


def convolution_call(layer, shape):
    return next(call for call in record(layer, shape).calls if call.op == "convolution")


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(4, 6, 3, dtype=torch.float64), (2, 4, 7, 5)),
        (nn.Conv2d(4, 4, 3, dtype=torch.float64), (2, 4, 4, 4)),
        (nn.Conv2d(4, 6, 3, groups=2, dtype=torch.float64), (2, 4, 7, 5)),
        (nn.Conv2d(4, 8, 3, groups=4, dtype=torch.float64), (2, 4, 7, 5)),
        (nn.Conv1d(4, 6, 3, dtype=torch.float64), (2, 4, 7)),
        (nn.Conv3d(2, 3, 2, dtype=torch.float64), (2, 2, 4, 5, 3)),
        (nn.ConvTranspose1d(3, 5, 3, dtype=torch.float64), (2, 3, 7)),
        (nn.ConvTranspose2d(4, 4, 3, stride=2, dtype=torch.float64), (2, 4, 4, 4)),
        (nn.ConvTranspose2d(4, 6, 3, groups=2, dtype=torch.float64), (2, 4, 5, 3)),
        (nn.ConvTranspose2d(4, 4, 3, groups=2, dtype=torch.float64), (2, 4, 4, 4)),
        (nn.ConvTranspose2d(4, 8, 3, groups=4, dtype=torch.float64), (2, 4, 5, 3)),
        (nn.ConvTranspose2d(6, 4, 3, groups=2, dtype=torch.float64), (2, 6, 5, 3)),
        (nn.ConvTranspose3d(2, 2, 2, dtype=torch.float64), (1, 2, 3, 4, 2)),
    ],
)
def test_scaled_convolution_multiplies_each_output_channel(layer, shape):
    """The oracle doesn't touch weights: it scales the output, channel by channel."""
    call = convolution_call(layer, shape)
    scale = torch.randn(layer.out_channels, dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        layer.bias.zero_()
        expected = layer(x)
        for channel in range(layer.out_channels):
            expected[:, channel] *= scale[channel]
        layer.weight.copy_(RULES["convolution"].scaled(call, layer.weight, scale))
        torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_scaled_matrix_multiplies_each_output_feature():
    weight = torch.randn(3, 5, dtype=torch.float64)
    scale = torch.randn(5, dtype=torch.float64)
    expected = weight.clone()
    for row in range(3):
        for column in range(5):
            expected[row, column] *= scale[column]
    call = next(call for call in record(nn.Linear(3, 5), (2, 3)).calls if call.op == "addmm")
    assert torch.equal(RULES["addmm"].scaled(call, weight, scale), expected)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("conv", "norm", "shape"),
    [
        (nn.Conv1d(3, 5, 3), nn.BatchNorm1d, (2, 3, 9)),
        (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d, (2, 4, 9, 7)),
        (nn.Conv3d(2, 3, 2), nn.BatchNorm3d, (2, 2, 4, 5, 3)),
        (nn.ConvTranspose2d(4, 4, 3), nn.BatchNorm2d, (2, 4, 5, 5)),
    ],
)
def test_agrees_with_pytorch_where_it_is_right(conv, norm, shape, bias, randomised):
    if not bias:
        conv.bias = None
    net = randomised(nn.Sequential(conv, norm(conv.out_channels)))
    peer = fuse_conv_bn_eval(net[0], net[1], transpose=isinstance(conv, nn.ConvTranspose2d))
    ours = fold(net, shape).model[0]
    torch.testing.assert_close(ours.weight, peer.weight)
    torch.testing.assert_close(ours.bias, peer.bias)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("features", [(3, 5), (4, 4)])
def test_linear_agrees_with_pytorch(features, bias, randomised):
    net = randomised(nn.Sequential(nn.Linear(*features, bias=bias), nn.BatchNorm1d(features[1])))
    peer = fuse_linear_bn_eval(net[0], net[1])
    ours = fold(net, (6, features[0])).model[0]
    torch.testing.assert_close(ours.weight, peer.weight)
    torch.testing.assert_close(ours.bias, peer.bias)


def test_weighted_sum_is_refused():
    call = next(
        call
        for call in record(
            nn.Linear(3, 5), (2, 3), step=lambda m, a, k: torch.addmm(m.bias, a[0], m.weight.t(), beta=2)
        ).calls
        if call.op == "addmm"
    )
    assert "alpha and beta" in RULES["addmm"].unfit(call)
