"""Values, modules and weights that are used more than once."""

from torch import nn

from fold.micro.case import FOLDED, KEPT, Micro, Net

IMAGE = (2, 3, 9, 7)


def conv(**options):
    return nn.Conv2d(3, 5, 3, **options)


def net(forward, tied=False, **parts):
    """Return a maker of a network with two convolutions alike and one or two batch norms."""

    def make():
        made = Net(forward, **{name: part() for name, part in parts.items()})
        if tied:
            made.second.weight = made.first.weight
        return made

    return make


def norm():
    return nn.BatchNorm2d(5)


def conv_and_add(s, x):
    y = s.bn(x)
    return s.conv(y).relu() + y


CASES = (
    Micro(
        "conv_out_used_twice",
        net(lambda s, x: s.bn(y := s.conv(x)).relu() + y, conv=conv, bn=norm),
        IMAGE,
        KEPT,
    ),
    Micro(  # one weight serves both calls, and only one of them is normalised
        "shared_conv_one_bn(#104593)",
        net(lambda s, x: s.bn(s.conv(x)) + s.conv(x.flip(3)), conv=conv, bn=norm),
        IMAGE,
        KEPT,
    ),
    Micro(
        "shared_conv_same_bn_twice",
        net(lambda s, x: s.bn(s.conv(x)) + s.bn(s.conv(x.flip(3))), conv=conv, bn=norm),
        IMAGE,
        FOLDED,
    ),
    # The table calls both foldable, which takes one weight for each call; a module has one for all of its
    # calls. One batch norm goes into it, and the other one then undoes that in its own numbers.
    Micro(
        "shared_conv_two_bns",
        net(lambda s, x: s.bn1(s.conv(x)) + s.bn2(s.conv(x.flip(3))), conv=conv, bn1=norm, bn2=norm),
        IMAGE,
        "folded partial kept",
        counts={"folded": 1},
    ),
    Micro(
        "one_bn_after_two_convs",
        net(lambda s, x: s.bn(s.first(x)) + s.bn(s.second(x)), first=conv, second=conv, bn=norm),
        IMAGE,
        FOLDED,
    ),
    Micro(  # a tensor of its own for the layer that changes is enough
        "tied_weight_param_one_bn",
        net(lambda s, x: s.bn(s.first(x)) + s.second(x.flip(3)), tied=True, first=conv, second=conv, bn=norm),
        IMAGE,
        FOLDED,
    ),
    Micro(
        "bn_out_used_by_conv_and_add",
        net(conv_and_add, conv=lambda: nn.Conv2d(3, 3, 1), bn=lambda: nn.BatchNorm2d(3)),
        IMAGE,
        KEPT,
    ),
)

MORE = (
    Micro(  # both calls give the same value, so half of the sum of both maps stands for each
        "shared_conv_two_bns_on_one_input",
        net(lambda s, x: s.bn1(s.conv(x)) + s.bn2(s.conv(x)), conv=conv, bn1=norm, bn2=norm),
        IMAGE,
        "folded merged partial kept",
    ),
    Micro(
        "tied_weights_one_bn_each",
        net(
            lambda s, x: s.bn1(s.first(x)) + s.bn2(s.second(x.flip(3))),
            tied=True,
            first=conv,
            second=conv,
            bn1=norm,
            bn2=norm,
        ),
        IMAGE,
        FOLDED,
    ),
    Micro(
        "tied_weights_same_bn",
        net(
            lambda s, x: s.bn(s.first(x)) + s.bn(s.second(x.flip(3))),
            tied=True,
            first=conv,
            second=conv,
            bn=norm,
        ),
        IMAGE,
        FOLDED,
    ),
    Micro(  # the other reader of the value is a layer, which takes the change back in its own weights
        "conv_out_used_by_bn_and_conv",
        net(
            lambda s, x: (s.bn(y := s.conv(x)).relu(), s.other(y)),
            conv=conv,
            bn=norm,
            other=lambda: nn.Conv2d(5, 4, 1),
        ),
        IMAGE,
        FOLDED,
    ),
    Micro(  # the other reader pads with zeros, which are not the value's zeros any more
        "conv_out_used_by_bn_and_padded_conv",
        net(
            lambda s, x: (s.bn(y := s.conv(x)).relu(), s.other(y)),
            conv=conv,
            bn=norm,
            other=lambda: nn.Conv2d(5, 4, 3, padding=1),
        ),
        IMAGE,
        "kept partial",
    ),
    Micro(
        "two_bns_on_one_conv",  # one goes into the convolution, the other one makes up for it
        net(lambda s, x: (s.bn1(y := s.conv(x)).relu(), s.bn2(y).relu()), conv=conv, bn1=norm, bn2=norm),
        IMAGE,
        "folded partial kept",
        counts={"folded": 1},
    ),
    Micro(
        "two_bns_on_one_conv_before_convs",
        net(
            lambda s, x: (s.first(s.bn1(y := s.conv(x))), s.second(s.bn2(y))),
            conv=conv,
            bn1=norm,
            bn2=norm,
            first=lambda: nn.Conv2d(5, 4, 1),
            second=lambda: nn.Conv2d(5, 3, 2),
        ),
        IMAGE,
        FOLDED,
    ),
    Micro(
        "bn_in_two_places",  # a module is replaced for all of its calls or for none
        net(
            lambda s, x: (
                s.bn(s.conv(x)) + s.bn(x.mean(1, keepdim=True).expand(-1, 5, -1, -1)[:, :, 1:-1, 1:-1])
            ),
            conv=conv,
            bn=norm,
        ),
        IMAGE,
        KEPT,
    ),
    Micro(
        "conv_weight_returned",  # a network that hands its weights out
        net(lambda s, x: (s.bn(s.conv(x)), s.conv.weight.square().sum()), conv=conv, bn=norm),
        IMAGE,
        KEPT,
    ),
    Micro(  # the same batch norm twice: one replacement would have to suit both calls
        "bn_after_itself_before_relu",
        net(
            lambda s, x: s.conv(s.bn(s.bn(x)).relu()),
            conv=lambda: nn.Conv2d(3, 5, 1),
            bn=lambda: nn.BatchNorm2d(3),
        ),
        IMAGE,
        "kept partial",
    ),
    Micro(
        "bn_after_itself_after_conv",
        net(lambda s, x: s.bn(s.bn(s.conv(x))), conv=conv, bn=norm),
        IMAGE,
        FOLDED,
    ),
)
