"""Batch norm on the network's input, before a layer: it goes forward, where padding doesn't cut its shift."""

from torch import nn

from fold.micro.case import FOLDED, KEPT, SCALE, Micro, Net

IMAGE = (2, 3, 9, 7)
BORDERS = ("map", "pad")


def seq(*makers):
    """Return a maker of a batch norm on three channels and what follows it."""
    return lambda: nn.Sequential(nn.BatchNorm2d(3), *(make() for make in makers))


def conv(inputs=3, outputs=5, kernel=3, **options):
    return lambda: nn.Conv2d(inputs, outputs, kernel, **options)


def chunked(s, x):
    first, second = s.bn(x).chunk(2, 1)
    return s.first(first) + s.second(second)


def two_readers(s, x):
    y = s.bn(x)
    return s.first(y), s.second(y)


def linear_bn_linear(s, x):
    return s.linear(s.bn(x.transpose(1, 2)).transpose(1, 2))


CASES = (
    Micro("bn_conv_pad0", seq(conv()), IMAGE, FOLDED),
    Micro("bn_conv1x1", seq(conv(kernel=1)), IMAGE, FOLDED),
    Micro("bn_conv_pad1(exact: keep)", seq(conv(padding=1)), IMAGE, SCALE, borders=BORDERS),
    Micro("bn_conv1x1_pad1(trap)", seq(conv(kernel=1, padding=1)), IMAGE, SCALE, borders=BORDERS),
    Micro("bn_conv_reflectpad", seq(conv(padding=1, padding_mode="reflect")), IMAGE, FOLDED),
    Micro("bn_conv_circularpad", seq(conv(padding=1, padding_mode="circular")), IMAGE, FOLDED),
    Micro("bn_ReflectionPad_conv", seq(lambda: nn.ReflectionPad2d(1), conv()), IMAGE, FOLDED),
    Micro("bn_ZeroPad_conv(exact: keep)", seq(lambda: nn.ZeroPad2d(1), conv()), IMAGE, SCALE),
    Micro(
        "bn_groupconv_pad0",
        lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, groups=2)),
        (2, 4, 9, 7),
        FOLDED,
    ),
    Micro("bn_dwconv_pad0", seq(conv(3, 3, groups=3)), IMAGE, FOLDED),
    Micro("bn_dwconv1x1", seq(conv(3, 6, 1, groups=3)), IMAGE, FOLDED),
    # The table calls this one foldable; only its scale is. Every output pixel reads one input pixel through
    # one of the kernel's four taps, so the shift t adds Σ_c t_c W[c, o, i, j] at phase (i, j) of the stride,
    # and a bias is one number per channel: the best one leaves 83 % of what the shift adds (its norm), which
    # is 6 % of the output's size (test_the_shift_before_a_strided_transposed_convolution_has_no_bias).
    Micro("bn_convT_k2s2", seq(lambda: nn.ConvTranspose2d(3, 5, 2, stride=2)), (2, 3, 5, 4), SCALE),
    Micro("bn_convT_k3(exact: keep)", seq(lambda: nn.ConvTranspose2d(3, 5, 3)), (2, 3, 5, 4), SCALE),
    Micro("bn_convT_1x1", seq(lambda: nn.ConvTranspose2d(3, 5, 1)), (2, 3, 5, 4), FOLDED),
    Micro("bn_linear", lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 5)), (4, 3), FOLDED),
    Micro(
        "bn_flatten_linear",
        seq(nn.Flatten, lambda: nn.Linear(3 * 5 * 4, 7)),
        (2, 3, 5, 4),
        FOLDED,
        resizable=False,
    ),
    Micro("bn_avgpool_conv", seq(lambda: nn.AvgPool2d(2), conv()), IMAGE, FOLDED),
    Micro(
        "bn_gap_flatten_linear",
        seq(lambda: nn.AdaptiveAvgPool2d(1), nn.Flatten, lambda: nn.Linear(3, 5)),
        IMAGE,
        FOLDED,
    ),
    Micro(
        "bn_avgpoolpad_conv(exact: keep)", seq(lambda: nn.AvgPool2d(3, 2, padding=1), conv()), IMAGE, SCALE
    ),
    Micro(
        "bn_dropout_linear",
        lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 5)),
        (4, 3),
        FOLDED,
    ),
    Micro(
        "bn_two_convs_pad0",
        lambda: Net(
            two_readers, bn=nn.BatchNorm2d(3), first=nn.Conv2d(3, 5, 3), second=nn.Conv2d(3, 4, 1, bias=False)
        ),
        IMAGE,
        FOLDED,
    ),
    # some gammas are negative: the ReLU cuts the other side of those channels
    Micro("bn_relu_conv", seq(nn.ReLU, conv()), IMAGE, SCALE),
    Micro(
        "bn_chunk_convs",
        lambda: Net(chunked, bn=nn.BatchNorm2d(6), first=nn.Conv2d(3, 5, 3), second=nn.Conv2d(3, 5, 3)),
        (2, 6, 9, 7),
        FOLDED,
    ),
)

EQUAL_SIZES = (
    Micro(
        "bn_convT_square_groups_1x1",
        lambda: nn.Sequential(nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 4, 1, groups=2)),
        (4, 4, 4, 4),
        FOLDED,
    ),
    Micro(
        "bn_groupconv_square",
        lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1, groups=2)),
        (4, 4, 4, 4),
        FOLDED,
    ),
    Micro(
        "bn1d_transposed_linear_square",
        lambda: Net(linear_bn_linear, bn=nn.BatchNorm1d(5), linear=nn.Linear(5, 5)),
        (5, 5, 5),
        FOLDED,
        resizable=False,
    ),
    Micro(
        "bn1d_linear_over_positions",  # the linear layer mixes positions, not the batch norm's channels
        lambda: nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 5)),
        (5, 5, 5),
        KEPT,
        resizable=False,
    ),
    Micro(
        "bn_flatten_linear_square",
        lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 4)),
        (4, 4, 4, 4),
        FOLDED,
        resizable=False,
    ),
)
