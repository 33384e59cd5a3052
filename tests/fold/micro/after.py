"""Batch norm after a convolution or linear layer: it goes into that layer's weights."""

import torch
from torch import nn

from fold.micro.case import FOLDED, KEPT, Micro, Net

Seq = nn.Sequential


def levit():
    """Every position of every sample is a row for the batch norm; ``reshape_as`` reads a shape only."""
    return Net(
        lambda s, x: s.bn((y := s.linear(x)).flatten(0, 1)).reshape_as(y),
        linear=nn.Linear(3, 5, bias=False),
        bn=nn.BatchNorm1d(5),
    )


def transposed(bias):
    return Net(
        lambda s, x: s.bn(s.linear(x).transpose(1, 2)),
        linear=nn.Linear(3, 5, bias=bias),
        bn=nn.BatchNorm1d(5),
    )


def mixed():
    """The reshape cuts rows of 6 features into rows of 4: each channel of it holds parts of two positions."""
    return Net(
        lambda s, x: s.bn(s.linear(x).reshape(-1, 6, 4)),
        linear=nn.Linear(3, 6, bias=False),
        bn=nn.BatchNorm1d(6),
    )


def mixed_square():
    """As :func:`mixed`, where all sizes are 5: the reshape changes nothing, and channels are positions."""
    return Net(
        lambda s, x: s.bn(s.linear(x).reshape(-1, 5, 5)),
        linear=nn.Linear(5, 5, bias=False),
        bn=nn.BatchNorm1d(5),
    )


CASES = (
    Micro("conv_bn", lambda: Seq(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5)), (2, 3, 9, 7), FOLDED),
    Micro(
        "conv_bias_bn_affine_False",
        lambda: Seq(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, affine=False)),
        (2, 3, 9, 7),
        FOLDED,
    ),
    Micro("dwconv_bn", lambda: Seq(nn.Conv2d(5, 5, 3, groups=5), nn.BatchNorm2d(5)), (2, 5, 9, 7), FOLDED),
    Micro("groupconv_bn", lambda: Seq(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)), (2, 4, 9, 7), FOLDED),
    Micro("conv1d_bn", lambda: Seq(nn.Conv1d(3, 5, 3), nn.BatchNorm1d(5)), (2, 3, 9), FOLDED),
    Micro("conv3d_bn", lambda: Seq(nn.Conv3d(3, 5, 2), nn.BatchNorm3d(5)), (2, 3, 5, 4, 3), FOLDED),
    Micro(
        "conv_reflectpad_bn",
        lambda: Seq(nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(5)),
        (2, 3, 9, 7),
        FOLDED,
    ),
    Micro(
        "convT2d_bn",
        lambda: Seq(nn.ConvTranspose2d(3, 5, 3, stride=2, padding=1, output_padding=1), nn.BatchNorm2d(5)),
        (2, 3, 6, 4),
        FOLDED,
    ),
    Micro(
        "convT1d_bn",
        lambda: Seq(nn.ConvTranspose1d(3, 5, 3, stride=2, bias=False), nn.BatchNorm1d(5)),
        (2, 3, 7),
        FOLDED,
    ),
    Micro("convT3d_bn", lambda: Seq(nn.ConvTranspose3d(3, 5, 2), nn.BatchNorm3d(5)), (2, 3, 4, 3, 2), FOLDED),
    Micro(
        "convT2d_groups2_bn",
        lambda: Seq(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)),
        (2, 4, 5, 3),
        FOLDED,
    ),
    Micro(
        "convT2d_groups2_square_bn",
        lambda: Seq(nn.ConvTranspose2d(4, 4, 3, groups=2), nn.BatchNorm2d(4)),
        (4, 4, 4, 4),
        FOLDED,
    ),
    Micro(
        "convT2d_depthwise_bn",
        lambda: Seq(nn.ConvTranspose2d(5, 5, 3, groups=5), nn.BatchNorm2d(5)),
        (2, 5, 5, 3),
        FOLDED,
    ),
    Micro(
        "convT2d_dw_mult2_bn",
        lambda: Seq(nn.ConvTranspose2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)),
        (2, 3, 5, 4),
        FOLDED,
    ),
    Micro(
        "convT2d_square_bn", lambda: Seq(nn.ConvTranspose2d(4, 4, 3), nn.BatchNorm2d(4)), (4, 4, 4, 4), FOLDED
    ),
    Micro("linear_bn1d_2D", lambda: Seq(nn.Linear(3, 5), nn.BatchNorm1d(5)), (4, 3), FOLDED),
    Micro(
        "linear_bn1d_affine_False",
        lambda: Seq(nn.Linear(3, 5), nn.BatchNorm1d(5, affine=False)),
        (4, 3),
        FOLDED,
    ),
    Micro(
        "linear_nobias_bn1d_2D", lambda: Seq(nn.Linear(5, 5, bias=False), nn.BatchNorm1d(5)), (5, 5), FOLDED
    ),
    # the batch norm's channels are positions here, and a linear layer has one weight for all of them
    Micro(
        "linear_bn1d_3D_C!=L",
        lambda: Seq(nn.Linear(3, 5), nn.BatchNorm1d(7)),
        (2, 7, 3),
        KEPT,
        resizable=False,
    ),
    Micro(
        "linear_bn1d_3D_C==L(trap)",
        lambda: Seq(nn.Linear(3, 5), nn.BatchNorm1d(5)),
        (2, 5, 3),
        KEPT,
        resizable=False,
    ),
    Micro(
        "linear_nobias_bn1d_3D_C==L(trap)",
        lambda: Seq(nn.Linear(5, 5, bias=False), nn.BatchNorm1d(5)),
        (5, 5, 5),
        KEPT,
        resizable=False,
    ),
    Micro("linear_flatten_bn_reshape(levit)", levit, (2, 7, 3), FOLDED, resizable=False),
    Micro("linear_transpose_bn", lambda: transposed(True), (2, 7, 3), FOLDED, resizable=False),
    Micro("linear_nobias_transpose_bn", lambda: transposed(False), (5, 5, 3), FOLDED, resizable=False),
    Micro("linear_nobias_reshape_mix_bn(trap)", mixed, (2, 4, 3), KEPT, resizable=False),
)

EQUAL_SIZES = (
    Micro("conv1d_bn_C==L==N", lambda: Seq(nn.Conv1d(5, 5, 1), nn.BatchNorm1d(5)), (5, 5, 5), FOLDED),
    Micro(
        "conv3d_bn_square",
        lambda: Seq(nn.Conv3d(4, 4, 3, padding=1, groups=2), nn.BatchNorm3d(4)),
        (4,) * 5,
        FOLDED,
    ),
    Micro("levit_square", levit, (5, 5, 3), FOLDED, resizable=False),
    Micro(
        "linear_transpose_bn_C==L==N",
        lambda: Net(
            lambda s, x: s.bn(s.linear(x).transpose(1, 2)), linear=nn.Linear(5, 5), bn=nn.BatchNorm1d(5)
        ),
        (5, 5, 5),
        FOLDED,
        resizable=False,
    ),
    Micro(
        "linear_permute_bn_twice_transposed",  # there and back: the channels are positions again
        lambda: Net(
            lambda s, x: s.bn(torch.swapaxes(s.linear(x).permute(0, 2, 1), 1, 2)),
            linear=nn.Linear(5, 5),
            bn=nn.BatchNorm1d(5),
        ),
        (5, 5, 5),
        KEPT,
        resizable=False,
    ),
    Micro("reshape_that_changes_nothing", mixed_square, (5, 5, 5), KEPT, resizable=False),
    Micro(
        "conv_transposed_image_bn",  # height stands where the channels were
        lambda: Net(
            lambda s, x: s.bn(s.conv(x).transpose(1, 2)),
            conv=nn.Conv2d(5, 5, 3, padding=1),
            bn=nn.BatchNorm2d(5),
        ),
        (5, 5, 5, 5),
        KEPT,
        resizable=False,
    ),
)
