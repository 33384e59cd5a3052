"""What must not merge, or only so far: each looks like a sum of branches and isn't quite one."""

import torch
import torch.nn.functional as F
from torch import nn

from fold.merge.branches import Block, bn, conv, scale, simple


def in_place_on_input(self, x):
    x = torch.tanh(x)
    skip = x
    x += self.a(x) + self.b(x)
    return x, skip


def viewed_before(self, x):
    out = self.a(x)
    seen = out.view(-1)
    out += self.b(x)
    half = seen * 1.0
    out += self.c(x)
    return F.relu(out) + half.view_as(out)


def also_returned(self, x):
    branch = self.b(x)
    return self.a(x) + branch, branch


def unused(self, x):
    return self.a(x) + self.b(x) if self.lucky else self.spare(x)


def read_elsewhere(self, x):
    return self.m(x) + F.conv2d(x, self.m.b.weight.view(4, 1, 1, 1), groups=4).tanh()


def data_dependent(self, x):
    return self.m(x) if x.mean().item() < 100 else x


def lucky(**modules):
    block = Block(unused, **modules)
    block.lucky = True
    return block


def functional(self, x):
    n = self.b
    return self.a(x) + F.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias)


# name: network, sums merged, batch norms left, a part of the reason ("" for none)
TRAPS = {
    "no two branches": (lambda: nn.Sequential(conv(), bn()), 0, 1, ""),
    "different values": (lambda: Block(lambda s, x: s.a(x) + s.b(x.relu()), a=conv(), b=bn()), 0, 1, ""),
    "branch used twice": (
        lambda: Block(lambda s, x: s.a(x) + (y := s.b(x)) + y.tanh(), a=conv(), b=bn()),
        0,
        1,
        "",
    ),
    "branch returned": (lambda: Block(also_returned, a=conv(), b=bn()), 0, 1, ""),
    "no convolution": (
        lambda: nn.Sequential(Block(lambda s, x: s.a(x) + s.b(x), a=bn(), b=bn())),
        0,
        2,
        "none of the",
    ),
    "stride": (
        lambda: Block(lambda s, x: s.a(x) + s.p(s.b(x)), a=conv(stride=2), b=bn(), p=nn.MaxPool2d(1, 2)),
        0,
        1,
        "",
    ),
    "pool without padding": (
        lambda: nn.Sequential(
            Block(
                lambda s, x: s.a(x) + s.b(s.p(x)),
                a=conv(),
                b=bn(),
                p=nn.AvgPool2d(3, 1, 1, count_include_pad=False),
            )
        ),
        0,
        1,
        "",
    ),
    "reflecting": (
        lambda: Block(lambda s, x: s.a(x) + s.b(x), a=conv(padding_mode="reflect"), b=bn()),
        0,
        1,
        "",
    ),
    "conv after padded conv": (
        lambda: nn.Sequential(Block(lambda s, x: s.a(x) + s.b(s.c(x)), a=conv(), b=conv(), c=conv(1))),
        0,
        0,
        "",
    ),
    "dense beside depthwise": (
        lambda: nn.Sequential(
            Block(lambda s, x: s.a(x) + s.b(x), a=conv(groups=4), b=nn.Sequential(conv(1), bn()))
        ),
        0,
        1,
        "mixes channels",
    ),
    "crossed kernels": (
        lambda: nn.Sequential(
            Block(
                lambda s, x: s.a(x) + s.b(x),
                a=nn.Conv2d(4, 4, (1, 3), padding=(0, 1)),
                b=nn.Sequential(nn.Conv2d(4, 4, (3, 1), padding=(1, 0)), bn()),
            )
        ),
        0,
        1,
        "reaches beyond",
    ),
    "gain along the width": (
        lambda: nn.Sequential(Block(lambda s, x: s.a(x) * s.w + s.b(x), a=conv(), b=bn(), w=scale(4))),
        0,
        1,
        "",
    ),
    "bias along the height": (
        lambda: nn.Sequential(Block(lambda s, x: (s.a(x) + s.w) + s.b(x), a=conv(), b=bn(), w=scale(4, 1))),
        0,
        1,
        "",
    ),
    "broadcast branch": (
        lambda: nn.Sequential(Block(lambda s, x: s.a(x) + s.b(x.mean((2, 3), True)), a=conv(), b=bn())),
        0,
        1,
        "",
    ),
    "transposed": (
        lambda: nn.Sequential(
            Block(lambda s, x: s.a(x) + s.b(x), a=nn.ConvTranspose2d(4, 4, 3, padding=1), b=bn())
        ),
        0,
        1,
        "",
    ),
    "functional batch norm": (lambda: Block(functional, a=conv(), b=bn()), 0, 1, "modules of their own"),
    "viewed before a write": (lambda: Block(viewed_before, a=conv(), b=conv(1), c=bn()), 0, 1, ""),
    "sum over its input": (lambda: Block(in_place_on_input, a=conv(), b=bn()), 1, 0, ""),
    "sum over its input, whole": (
        lambda: nn.Sequential(nn.Tanh(), Block(lambda s, x: x.add_(s.a(x)).add_(1), a=conv(), b=bn())),
        0,
        0,
        "",
    ),
    "parameters for another path": (lambda: nn.Sequential(lucky(a=conv(), b=bn(), spare=conv())), 1, 0, ""),
    "read elsewhere": (lambda: Block(read_elsewhere, m=simple()), 0, 1, "m.b.weight is also read by"),
    "decides by data": (lambda: Block(data_dependent, m=simple()), 0, 1, "depends on data"),
}
