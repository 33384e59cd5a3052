"""Operators between a batch norm and the layer that takes it in: concatenation, addition, pools, shuffles."""

import torch
from torch import nn

from fold.micro.case import FOLDED, KEPT, SCALE, Micro, Net

IMAGE = (2, 3, 9, 7)


def conv(inputs=3, outputs=5, kernel=3, **options):
    return nn.Conv2d(inputs, outputs, kernel, **options)


def around(*makers, channels=5):
    """Return a maker of a convolution, what stands between, and a batch norm."""
    return lambda: nn.Sequential(conv(), *(make() for make in makers), nn.BatchNorm2d(channels))


def three_norms():
    return Net(
        lambda s, x: s.bn(s.bn1(s.first(x)) + s.bn2(s.second(x))),
        first=conv(),
        second=conv(bias=False),
        bn=nn.BatchNorm2d(5),
        bn1=nn.BatchNorm2d(5),
        bn2=nn.BatchNorm2d(5),
    )


def halves(s, x):
    first, second = s.conv(x).chunk(2, 1)
    return s.bn(first), second.relu()


CASES = (
    Micro(
        "cat(conv,conv)_bn",
        lambda: Net(
            lambda s, x: s.bn(torch.cat([s.first(x), s.second(x)], 1)),
            first=conv(),
            second=conv(3, 4, bias=False),
            bn=nn.BatchNorm2d(9),
        ),
        IMAGE,
        FOLDED,
    ),
    Micro(  # three of the batch norm's channels are the network's input
        "cat_input_conv_bn",
        lambda: Net(
            lambda s, x: s.bn(torch.cat([x, s.conv(x)], 1)), conv=conv(padding=1), bn=nn.BatchNorm2d(8)
        ),
        IMAGE,
        SCALE,
    ),
    Micro(
        "add(conv,conv)_bn",
        lambda: Net(
            lambda s, x: s.bn(s.first(x) + s.second(x)),
            first=conv(),
            second=conv(bias=False),
            bn=nn.BatchNorm2d(5),
        ),
        IMAGE,
        FOLDED,
    ),
    Micro("add(bn(conv),bn(conv))_bn", three_norms, IMAGE, FOLDED),
    Micro(
        "conv_bn_bn",
        lambda: nn.Sequential(conv(bias=False), nn.BatchNorm2d(5), nn.BatchNorm2d(5)),
        IMAGE,
        FOLDED,
    ),
    Micro(  # two affine maps in a row are one, and no layer is there for that one
        "relu_bn_bn_relu",
        lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.ReLU()),
        IMAGE,
        "folded partial kept",
        counts={"folded": 1},
    ),
    Micro("conv_avgpool_bn", around(lambda: nn.AvgPool2d(2)), IMAGE, FOLDED),
    Micro("conv_maxpool_bn_pos", around(lambda: nn.MaxPool2d(2)), IMAGE, FOLDED, gammas="positive"),
    Micro("conv_maxpool_bn_mixed_sign", around(lambda: nn.MaxPool2d(2)), IMAGE, SCALE),
    Micro("conv_dropout_bn", around(nn.Dropout), IMAGE, FOLDED),
    Micro("conv_identity_bn", around(nn.Identity), IMAGE, FOLDED),
    Micro("conv_upsample_bn", around(lambda: nn.Upsample(scale_factor=2)), IMAGE, FOLDED),
    # The table keeps this one, as every peer does. Channel c of the shuffled image is made of channels
    # 4c … 4c + 3 of the convolution, and each of those goes to c alone: the channel map folds it exactly.
    Micro(
        "conv_pixelshuffle_bn",
        lambda: nn.Sequential(conv(3, 12), nn.PixelShuffle(2), nn.BatchNorm2d(3)),
        IMAGE,
        FOLDED,
    ),
    Micro(
        "conv_chshuffle_bn",
        lambda: nn.Sequential(conv(3, 6), nn.ChannelShuffle(3), nn.BatchNorm2d(6)),
        IMAGE,
        FOLDED,
    ),
    Micro(
        "conv_layerscale_bn",
        lambda: Net(
            lambda s, x: s.bn(s.conv(x) * s.scale),
            conv=conv(),
            scale=nn.Parameter(torch.tensor([0.5, -1.5, 2.0, 0.7, 0.1]).view(5, 1, 1)),
            bn=nn.BatchNorm2d(5),
        ),
        IMAGE,
        FOLDED,
    ),
    Micro(
        "conv_chunk_bn_one_half",
        lambda: Net(halves, conv=conv(3, 10), bn=nn.BatchNorm2d(5)),
        IMAGE,
        FOLDED,
    ),
    Micro("conv_relu_bn", around(nn.ReLU), IMAGE, SCALE),
    Micro(
        "conv_add_const_bn",
        lambda: Net(
            lambda s, x: s.bn(s.conv(x) + s.constant),
            conv=conv(bias=False),
            constant=torch.tensor([0.5, -1.5, 2.0, 0.7, 0.1]).view(1, 5, 1, 1),
            bn=nn.BatchNorm2d(5),
        ),
        IMAGE,
        FOLDED,
    ),
)

EQUAL_SIZES = (
    Micro(
        "cat_of_swapped_halves_bn",
        lambda: Net(
            lambda s, x: s.bn(torch.cat([s.second(x), s.first(x)], 1)),
            first=conv(3, 3),
            second=conv(3, 3),
            bn=nn.BatchNorm2d(6),
        ),
        IMAGE,
        FOLDED,
    ),
    Micro(
        "chunks_swapped_and_joined_bn",
        lambda: Net(
            lambda s, x: s.bn(torch.cat(s.conv(x).chunk(2, 1)[::-1], 1)),
            conv=conv(3, 6),
            bn=nn.BatchNorm2d(6),
        ),
        IMAGE,
        FOLDED,
    ),
    Micro(  # over the batch axis, whose size is the channels'
        "cat_over_samples_bn",
        lambda: Net(
            lambda s, x: s.bn(torch.cat([s.first(x), s.second(x)], 0)),
            first=conv(4, 4),
            second=conv(4, 4),
            bn=nn.BatchNorm2d(4),
        ),
        (4, 4, 4, 4),
        FOLDED,
    ),
    Micro(  # over the height
        "cat_over_rows_bn",
        lambda: Net(
            lambda s, x: s.bn(torch.cat([s.first(x), s.second(x)], 2)),
            first=conv(4, 4),
            second=conv(4, 4, padding=(0, 0)),
            bn=nn.BatchNorm2d(4),
        ),
        (4, 4, 4, 4),
        FOLDED,
    ),
    Micro(
        "conv_chshuffle_by_reshape_bn",
        lambda: Net(
            lambda s, x: s.bn((y := s.conv(x)).view(-1, 2, 2, *y.shape[2:]).transpose(1, 2).reshape(y.shape)),
            conv=conv(4, 4, padding=1),
            bn=nn.BatchNorm2d(4),
        ),
        (4, 4, 4, 4),
        FOLDED,
    ),
    Micro(  # every channel of the image goes into four: one scale for each can't come from one
        "conv_pixelunshuffle_bn",
        lambda: nn.Sequential(conv(), nn.PixelUnshuffle(2), nn.BatchNorm2d(20)),
        (2, 3, 10, 6),
        KEPT,
    ),
)
