"""Sums of branches that merge: in a module of their own (``WHOLE``), and among other code (``SPREAD``).

For each: the block, and how many batch norms and convolutions are left of it.
"""

import torch
import torch.nn.functional as F
from torch import nn

from fold.merge.branches import Block, bn, conv, pair, scale


def two_in_a_loop(self, x):
    out = 0
    for branch in self.convs:
        out += branch(x)
    return F.relu(out)


def three_in_a_loop(self, x):
    out = self.scale(x) + self.skip(x)
    for branch in self.convs:
        out += branch(x)
    return F.relu(out)


def with_layer_scale(self, x):
    return x + self.gamma * (self.mixer(x) - self.norm(x))


WHOLE = {
    "3x3 + 1x1 + bn": (
        lambda: Block(lambda s, x: s.a(x) + s.b(x) + s.c(x), a=conv(), b=conv(1), c=bn()),
        0,
        1,
    ),
    "in-place sum": (
        lambda: Block(
            lambda s, x: s.act(s.a(x).add_(s.b(x)).add_(s.c(x))),
            a=conv(1),
            b=conv(),
            c=bn(),
            act=nn.ReLU(True),
        ),
        0,
        1,
    ),
    "identity": (lambda: Block(lambda s, x: s.bn(s.a(x) + s.b(x) + x), a=conv(), b=conv(1), bn=bn()), 0, 1),
    "sub": (lambda: Block(lambda s, x: s.b(x) - s.a(x), a=conv(), b=bn()), 0, 1),
    "rsub": (lambda: Block(lambda s, x: 3.0 - s.a(x) + s.b(x), a=conv(), b=bn()), 0, 1),
    "alpha": (lambda: Block(lambda s, x: torch.add(s.b(x), s.a(x), alpha=-0.5), a=conv(), b=bn()), 0, 1),
    "numbers": (lambda: Block(lambda s, x: 2 * s.a(x) + s.b(x) / 3 + 1.5, a=conv(), b=bn()), 0, 1),
    "layer scale": (
        lambda: Block(
            with_layer_scale,
            mixer=Block(lambda s, x: s.a(x) + s.b(x), a=conv(3, groups=4), b=bn()),
            norm=bn(),
            gamma=scale(4, 1, 1),
        ),
        0,
        1,
    ),
    "scalar parameter": (
        lambda: Block(lambda s, x: s.w * s.a(x) + s.b(x) * s.w, a=conv(), b=bn(), w=scale(1)),
        0,
        1,
    ),
    "constant added": (
        lambda: Block(lambda s, x: s.a(x) + s.b(x) + s.w, a=conv(), b=bn(), w=scale(1, 4, 1, 1)),
        0,
        1,
    ),
    "bn after conv": (
        lambda: Block(lambda s, x: s.a(x) + s.b(x), a=pair(c=conv(), n=bn()), b=pair(c=conv(1), n=bn())),
        0,
        1,
    ),
    "bn after bn": (lambda: Block(lambda s, x: s.a(x) + s.b(x), a=conv(), b=pair(m=bn(), n=bn())), 0, 1),
    "bn of a sum": (lambda: Block(lambda s, x: s.n(s.a(x) + x) + s.b(x), a=conv(), b=conv(1), n=bn()), 0, 1),
    "identity and bn of the sum": (lambda: Block(lambda s, x: s.n(s.a(x) + x), a=conv(), n=bn()), 0, 1),
    "average pool": (
        lambda: Block(lambda s, x: s.a(x) + s.n(s.p(x)), a=conv(), n=bn(), p=nn.AvgPool2d(3, 1, 1)),
        0,
        1,
    ),
    "depthwise into dense": (lambda: Block(lambda s, x: s.a(x) + s.b(x), a=conv(), b=conv(groups=4)), 0, 1),
    "groups": (
        lambda: Block(lambda s, x: s.a(x) + s.b(x) + s.c(x), a=conv(groups=2), b=conv(1, groups=4), c=bn()),
        0,
        1,
    ),
    "dilation": (
        lambda: Block(
            lambda s, x: s.a(x) + s.b(x) + s.c(x), a=conv(5), b=conv(3, padding=2, dilation=2), c=bn()
        ),
        0,
        1,
    ),
    "dilated host": (
        lambda: Block(lambda s, x: s.a(x) + s.b(x), a=conv(3, padding=2, dilation=2), b=bn()),
        0,
        1,
    ),
    "stride": (
        lambda: Block(lambda s, x: s.a(x) + s.b(x), a=conv(stride=2), b=conv(1, stride=2)),
        0,
        1,
    ),
    "more channels": (
        lambda: Block(lambda s, x: s.a(x) + s.b(x), a=nn.Conv2d(4, 6, 3, padding=1), b=nn.Conv2d(4, 6, 1)),
        0,
        1,
    ),
    "1x3 + 3x1 in 3x3": (
        lambda: Block(
            lambda s, x: s.a(x) + s.b(x) + s.c(x),
            a=conv(),
            b=nn.Conv2d(4, 4, (1, 3), padding=(0, 1)),
            c=nn.Conv2d(4, 4, (3, 1), padding=(1, 0)),
        ),
        0,
        1,
    ),
    "even kernels": (
        lambda: Block(lambda s, x: s.a(x) + s.b(x), a=conv(4, padding=1), b=conv(2, padding=0)),
        0,
        1,
    ),
    "equal padding in 1x1": (
        lambda: Block(lambda s, x: s.a(x) + s.b(x), a=conv(padding=2), b=conv(1, padding=1)),
        0,
        1,
    ),
    "before and after": (
        lambda: Block(
            lambda s, x: s.act(s.a(h := s.pre(x)) + s.b(h)),
            pre=pair(c=conv(1), r=nn.ReLU()),
            a=conv(),
            b=bn(),
            act=nn.ReLU(),
        ),
        0,
        2,
    ),
    "a sum of other things around": (
        lambda: Block(
            lambda s, x: F.relu(s.m(x)) + s.m2(x),
            m=Block(lambda s, x: s.a(x) + s.b(x), a=conv(), b=bn()),
            m2=conv(1),
        ),
        0,
        2,
    ),
}


SPREAD = {
    "beside other code": (lambda: Block(lambda s, x: F.relu(s.a(x) + s.b(x) + x), a=conv(), b=bn()), 0, 1),
    "loop from 0": (lambda: Block(two_in_a_loop, convs=nn.ModuleList([conv(1), conv(), bn()])), 0, 1),
    "in place into the small one": (
        lambda: Block(
            three_in_a_loop,
            scale=conv(1, groups=4),
            skip=bn(),
            convs=nn.ModuleList([conv(groups=4), conv(groups=4)]),
        ),
        0,
        1,
    ),
    "subtracted": (lambda: Block(lambda s, x: F.relu(s.b(x) - s.a(x)), a=conv(), b=bn()), 0, 1),
    "under a layer scale": (
        lambda: Block(lambda s, x: F.relu(x + s.g * (s.a(x) - s.b(x))), a=conv(), b=bn(), g=scale(4, 1, 1)),
        0,
        1,
    ),
    "two values": (
        lambda: Block(
            lambda s, x: F.relu(s.a(x) + s.b(x) + s.c(h := torch.tanh(x)) + s.d(h)),
            a=conv(),
            b=bn(),
            c=conv(),
            d=bn(),
        ),
        0,
        2,
    ),
    "scaled branch": (
        lambda: Block(lambda s, x: F.relu(s.a(x) + s.g * s.b(x)), a=conv(), b=bn(), g=scale(4, 1, 1)),
        0,
        1,
    ),
    "pooled branch": (
        lambda: Block(
            lambda s, x: F.relu(s.a(x) + s.b(x)), a=conv(), b=pair(p=nn.AvgPool2d(3, 1, 1), n=bn())
        ),
        0,
        1,
    ),
    "bn of the sum": (
        lambda: Block(lambda s, x: F.relu(s.n(s.a(x) + s.b(x))), a=conv(), b=bn(), n=bn()),
        1,
        1,
    ),
    "dense 1x1 stays beside depthwise": (
        lambda: Block(lambda s, x: F.relu(s.a(x) + s.b(x) + s.c(x)), a=conv(groups=4), b=conv(1), c=bn()),
        0,
        2,
    ),
}
