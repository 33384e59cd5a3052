"""Networks in small: pre-activation streams, dense streams, gates, parallel branches, layer scale."""

import torch
import torch.nn.functional as F
from torch import nn

from fold.micro.case import ANY, FOLDED, SCALE, Micro, Net

IMAGE = (2, 3, 12, 9)
C = 6


def conv(inputs, outputs, kernel=3, **options):
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **options)


class PreActivation(nn.Module):
    """Batch norm, ReLU, convolution, twice; a shortcut convolution of the normalised or of the raw stream."""

    def __init__(self, inputs, outputs, stride=1, shortcut=None):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, stride=stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs)
        self.of = shortcut
        if shortcut is not None:
            self.shortcut = conv(inputs, outputs, 1, stride=stride)

    def forward(self, x):
        y = F.relu(self.bn1(x))
        kept = x if self.of is None else self.shortcut(y if self.of == "normalised" else x)
        return kept + self.conv2(F.relu(self.bn2(self.conv1(y))))


class Stream(nn.Module):
    """A stem, pre-activation blocks, a last batch norm and a head."""

    def __init__(self, shortcut="normalised"):
        super().__init__()
        self.stem = conv(3, C)
        self.blocks = nn.Sequential(
            PreActivation(C, C),
            PreActivation(C, C),
            PreActivation(C, 8, stride=2, shortcut=shortcut),
            PreActivation(8, 8),
        )
        self.bn, self.head = nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x):
        x = F.max_pool2d(self.stem(x), 3, 2, 1)
        return self.head(F.relu(self.bn(self.blocks(x))).mean((2, 3)))


class Dense(nn.Module):
    """Every layer reads all that came before it, each through a batch norm of its own."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, C)
        self.outer = nn.ModuleList(nn.BatchNorm2d(C + 4 * i) for i in range(3))
        self.narrow = nn.ModuleList(conv(C + 4 * i, 7, 1) for i in range(3))
        self.inner = nn.ModuleList(nn.BatchNorm2d(7) for _ in range(3))
        self.wide = nn.ModuleList(conv(7, 4) for _ in range(3))
        self.head = nn.Linear(C + 12, 5)

    def forward(self, x):
        values = [self.stem(x)]
        for outer, narrow, inner, wide in zip(self.outer, self.narrow, self.inner, self.wide, strict=True):
            y = narrow(F.relu(outer(torch.cat(values, 1))))
            values.append(wide(F.relu(inner(y))))
        return self.head(torch.cat(values, 1).mean((2, 3)))


class Gated(nn.Module):
    """Squeeze-and-excite gates before or after a batch norm."""

    def __init__(self, gate_first):
        super().__init__()
        self.conv, self.bn = conv(3, C), nn.BatchNorm2d(C)
        self.squeeze, self.excite = nn.Conv2d(C, 2, 1), nn.Conv2d(2, C, 1)
        self.gate_first = gate_first

    def gate(self, x):
        return x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()

    def forward(self, x):
        y = self.conv(x)
        return self.bn(self.gate(y)) if self.gate_first else self.gate(self.bn(y))


class Parallel(nn.Module):
    """A k × k, a 1 × 1 and an identity branch, each with its batch norm, added up."""

    def __init__(self, channels=C):
        super().__init__()
        self.stem = conv(3, channels)
        self.square, self.point = conv(channels, channels), conv(channels, channels, 1)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(channels) for _ in range(3))
        self.after = conv(channels, channels)

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = self.bn1(self.square(x)) + self.bn2(self.point(x)) + self.bn3(x)
        return self.after(F.relu(y))


def negative_channel(net):
    """One gamma of the second block's first batch norm: a ReLU follows, so no other channel's sign helps."""
    net.blocks[1].bn1.weight.data[2] *= -1


def zero_channel(net):
    net.blocks[1].bn1.weight.data[2] = 0


PATHS = [f"blocks.{i}.bn{j}" for i in range(4) for j in (1, 2)] + ["bn"]
ONE_STAYS = {path: SCALE if path == "blocks.1.bn1" else FOLDED for path in PATHS}
DENSE = {f"{kind}.{i}": FOLDED if kind == "inner" else ANY for kind in ("outer", "inner") for i in range(3)}


CASES = (
    Micro("preactivation_stream", Stream, IMAGE, FOLDED, gammas="positive"),
    Micro("preactivation_raw_shortcut", lambda: Stream("raw"), IMAGE, FOLDED, gammas="positive"),
    Micro(
        "preactivation_one_negative_gamma",
        Stream,
        IMAGE,
        ONE_STAYS,
        gammas="positive",
        prepare=negative_channel,
    ),
    Micro("preactivation_one_zero_gamma", Stream, IMAGE, ONE_STAYS, gammas="positive", prepare=zero_channel),
    # Each part of the stream is read by several batch norms with different shifts: it can suit one of them.
    Micro("dense_stream", Dense, IMAGE, DENSE, counts={"folded": 4}, gammas="positive"),
    Micro("gate_before_bn", lambda: Gated(True), IMAGE, SCALE),
    Micro("gate_after_bn", lambda: Gated(False), IMAGE, FOLDED),
    Micro("parallel_branches", Parallel, IMAGE, FOLDED),
    Micro("parallel_branches_square", lambda: Parallel(3), (3, 3, 3, 3), FOLDED),
    Micro(  # the value itself is also a branch: merged or kept, but equal
        "bn_of_value_plus_value",
        lambda: Net(lambda s, x: s.bn(y := s.conv(x)) + y, conv=conv(3, C), bn=nn.BatchNorm2d(C)),
        IMAGE,
        ANY,
    ),
    Micro(
        "bn_out_used_by_1x1_conv_and_add",
        lambda: Net(lambda s, x: s.conv(y := s.bn(x)) + y, conv=conv(3, 3, 1), bn=nn.BatchNorm2d(3)),
        IMAGE,
        ANY,
    ),
    Micro(
        "value_added_to_itself",
        lambda: Net(lambda s, x: s.bn((y := s.conv(x)) + y), conv=conv(3, C), bn=nn.BatchNorm2d(C)),
        IMAGE,
        FOLDED,
    ),
    Micro(
        "value_subtracted_from_its_multiple",
        lambda: Net(lambda s, x: s.bn((y := s.conv(x)) * 3 - y), conv=conv(3, C), bn=nn.BatchNorm2d(C)),
        IMAGE,
        FOLDED,
    ),
    Micro(
        "product_of_two_convolutions",
        lambda: Net(
            lambda s, x: s.bn(s.first(x) * s.second(x)),
            first=conv(3, C),
            second=conv(3, C),
            bn=nn.BatchNorm2d(C),
        ),
        IMAGE,
        SCALE,
    ),
    Micro(
        "layer_scale_in_a_stream",
        lambda: Net(
            lambda s, x: (y := s.stem(x)) + s.scale * s.bn(s.conv(y)),
            stem=conv(3, C),
            conv=conv(C, C),
            scale=nn.Parameter(torch.linspace(-1, 2, C).view(C, 1, 1)),
            bn=nn.BatchNorm2d(C),
        ),
        IMAGE,
        FOLDED,
    ),
    Micro(
        "bn_three_times_before_conv",
        lambda: nn.Sequential(*(nn.BatchNorm2d(3) for _ in range(3)), nn.Conv2d(3, 5, 3)),
        IMAGE,
        FOLDED,
    ),
    Micro(
        "bn_and_its_input_joined_before_conv",
        lambda: Net(
            lambda s, x: s.conv(torch.cat([s.bn(x), x], 1)), conv=nn.Conv2d(6, 5, 3), bn=nn.BatchNorm2d(3)
        ),
        IMAGE,
        FOLDED,
    ),
    Micro(
        "bn_plus_conv_before_conv",
        lambda: Net(
            lambda s, x: s.last(s.bn(x) + s.conv(x)),
            conv=conv(3, 3),
            last=nn.Conv2d(3, 5, 2),
            bn=nn.BatchNorm2d(3),
        ),
        IMAGE,
        FOLDED,
    ),
)
