"""Pools, resampling, padding and slices between a convolution and its batch norm, in every mode."""

import torch
import torch.nn.functional as F
from torch import nn

from fold.micro.case import FOLDED, KEPT, SCALE, Micro, Net

IMAGE = (2, 3, 10, 7)


def through(make):
    """Return a maker of a convolution, a module and a batch norm."""
    return lambda: nn.Sequential(nn.Conv2d(3, 5, 3), make(), nn.BatchNorm2d(5))


def function(forward):
    return lambda: Net(forward, conv=nn.Conv2d(3, 5, 3), bn=nn.BatchNorm2d(5))


def case(name, make, expected, **options):
    return Micro(name, through(make), IMAGE, expected, **options)


CASES = (
    case("max_pool_ceil", lambda: nn.MaxPool2d(2, ceil_mode=True), FOLDED, gammas="positive"),
    case("max_pool_padded", lambda: nn.MaxPool2d(3, 2, padding=1), FOLDED, gammas="positive"),
    case("max_pool_dilated", lambda: nn.MaxPool2d(2, 1, dilation=2), FOLDED, gammas="positive"),
    case("adaptive_max_pool", lambda: nn.AdaptiveMaxPool2d((3, 2)), FOLDED, gammas="positive"),
    case("adaptive_max_pool_mixed", lambda: nn.AdaptiveMaxPool2d((3, 2)), SCALE),
    # a window at the edge averages zeros too, in which a shift is not
    case("avg_pool_padded", lambda: nn.AvgPool2d(3, 2, padding=1), SCALE),
    case("avg_pool_padded_uncounted", lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), FOLDED),
    # windows beyond the edge are cut, and divided by what is left of them
    case("avg_pool_ceil", lambda: nn.AvgPool2d(2, ceil_mode=True), FOLDED),
    case("avg_pool_ceil_uncounted", lambda: nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False), FOLDED),
    case("avg_pool_padded_ceil", lambda: nn.AvgPool2d(2, padding=1, ceil_mode=True), SCALE),
    case("avg_pool_divisor", lambda: nn.AvgPool2d(2, divisor_override=3), FOLDED),
    case("avg_pool_divisor_ceil", lambda: nn.AvgPool2d(2, divisor_override=3, ceil_mode=True), SCALE),
    case("adaptive_avg_pool", lambda: nn.AdaptiveAvgPool2d((3, 4)), FOLDED),
    case("lp_pool", lambda: nn.LPPool2d(2, 2), "kept partial", gammas="positive"),
    case("bilinear", lambda: nn.Upsample(scale_factor=2, mode="bilinear"), FOLDED),
    case("bilinear_corners", lambda: nn.Upsample((9, 11), mode="bilinear", align_corners=True), FOLDED),
    case("bicubic", lambda: nn.Upsample(scale_factor=2, mode="bicubic"), "folded kept partial"),
    case("zero_pad", lambda: nn.ZeroPad2d((1, 0, 2, 0)), SCALE),
    case("constant_pad", lambda: nn.ConstantPad2d(1, 0.5), SCALE),
    case("negative_pad", lambda: nn.ZeroPad2d(-1), FOLDED),
    case("reflection_pad", lambda: nn.ReflectionPad2d(2), FOLDED),
    case("replication_pad", lambda: nn.ReplicationPad2d((0, 1, 2, 0)), FOLDED),
    Micro("slices_of_the_image", function(lambda s, x: s.bn(s.conv(x)[:, :, 1::2, :-1])), IMAGE, FOLDED),
    Micro(
        "slice_of_channels",
        lambda: Net(lambda s, x: s.bn(s.conv(x)[:, 2:]), conv=nn.Conv2d(3, 7, 3), bn=nn.BatchNorm2d(5)),
        IMAGE,
        FOLDED,
    ),
    Micro("flipped_image", function(lambda s, x: s.bn(s.conv(x).flip(2, 3))), IMAGE, "folded kept"),
    Micro("flipped_channels", function(lambda s, x: s.bn(s.conv(x).flip(1))), IMAGE, "folded kept"),
    Micro("rolled_channels", function(lambda s, x: s.bn(s.conv(x).roll(1, 1))), IMAGE, "folded kept"),
    Micro("absolute_value", function(lambda s, x: s.bn(s.conv(x).abs())), IMAGE, SCALE),
    Micro("softmax_over_channels", function(lambda s, x: s.bn(s.conv(x).softmax(1))), IMAGE, KEPT),
    Micro(
        "local_response",
        function(lambda s, x: s.bn(F.local_response_norm(s.conv(x), 3))),
        IMAGE,
        KEPT,
    ),
    Micro(
        "leaky_relu_positive",
        lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.LeakyReLU(0.2), nn.BatchNorm2d(5)),
        IMAGE,
        SCALE,
        gammas="positive",
    ),
    Micro(
        "split_in_unequal_parts",
        lambda: Net(
            lambda s, x: [
                norm(part).relu() for norm, part in zip(s.norms, s.conv(x).split([2, 3, 1], 1), strict=True)
            ],
            conv=nn.Conv2d(3, 6, 3),
            norms=nn.ModuleList(nn.BatchNorm2d(n) for n in (2, 3, 1)),
        ),
        IMAGE,
        FOLDED,
    ),
    Micro(
        "channel_shuffle_then_cat",
        lambda: Net(
            lambda s, x: s.bn(torch.cat([F.channel_shuffle(s.first(x), 3), s.second(x)], 1)),
            first=nn.Conv2d(3, 6, 3),
            second=nn.Conv2d(3, 6, 3),
            bn=nn.BatchNorm2d(12),
        ),
        IMAGE,
        FOLDED,
    ),
)
