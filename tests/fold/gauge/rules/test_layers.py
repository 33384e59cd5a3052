"""Convolution and linear layers: with weights for its labels' gauges, each takes and gives what they say."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fold.gauge.claims import case
from fold.gauge.trials import assert_claim, assert_needed

SEQUENCE, IMAGE, CUBE = (2, 4, 5), (2, 4, 3, 5), (1, 2, 3, 2, 4)


def layer(shape, make):
    return case(lambda s, x: s.layer(x), shape, layer=make)


def twice(s, x, y):
    return s.layer(x), s.layer(y)


class Conv1D(nn.Module):
    """A linear layer whose weight is held as the operator reads it, (in, out)."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(5))

    def forward(self, x):
        return torch.addmm(self.bias, x.view(-1, 4), self.weight).view(*x.shape[:-1], 5)


def weight(*shape):
    return lambda: nn.Parameter(torch.randn(shape))


CASES = {
    "conv1d": layer(SEQUENCE, lambda: nn.Conv1d(4, 3, 2)),
    "conv2d": layer(IMAGE, lambda: nn.Conv2d(4, 3, 2)),
    "conv3d": layer(CUBE, lambda: nn.Conv3d(2, 3, 2)),
    "conv of equal sizes": layer((4, 4, 4, 4), lambda: nn.Conv2d(4, 4, 3, padding=1)),
    "conv without bias": layer(IMAGE, lambda: nn.Conv2d(4, 3, 2, bias=False)),
    "conv padded": layer(IMAGE, lambda: nn.Conv2d(4, 3, 3, padding=1)),
    "conv padded on one axis": layer(IMAGE, lambda: nn.Conv2d(4, 3, (1, 3), padding=(0, 1))),
    "conv padded to the same size": layer(IMAGE, lambda: nn.Conv2d(4, 3, 3, padding="same")),
    "conv 1x1 padded": layer(IMAGE, lambda: nn.Conv2d(4, 3, 1, padding=1)),
    "conv by itself around": layer(IMAGE, lambda: nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect")),
    "conv replicate": layer(IMAGE, lambda: nn.Conv2d(4, 3, 3, padding=1, padding_mode="replicate")),
    "conv circular": layer(IMAGE, lambda: nn.Conv2d(4, 3, 3, padding=1, padding_mode="circular")),
    "conv strided and dilated": layer((2, 4, 6, 7), lambda: nn.Conv2d(4, 3, 3, 2, dilation=2)),
    "conv grouped": layer(IMAGE, lambda: nn.Conv2d(4, 6, 2, groups=2)),
    "conv grouped, square": layer(IMAGE, lambda: nn.Conv2d(4, 4, 2, groups=2)),
    "conv depthwise": layer(IMAGE, lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4)),
    "conv depthwise, two each": layer(IMAGE, lambda: nn.Conv2d(4, 8, 2, groups=4)),
    "conv of one": layer((4, 3, 5), lambda: nn.Conv2d(4, 3, 2)),
    "transposed 1d": layer(SEQUENCE, lambda: nn.ConvTranspose1d(4, 3, 2)),
    "transposed 2d": layer(IMAGE, lambda: nn.ConvTranspose2d(4, 3, 3, 2, 1, 1)),
    "transposed 3d": layer(CUBE, lambda: nn.ConvTranspose3d(2, 3, 2)),
    "transposed, square": layer(IMAGE, lambda: nn.ConvTranspose2d(4, 4, 2)),
    "transposed, 1x1": layer(IMAGE, lambda: nn.ConvTranspose2d(4, 3, 1)),
    "transposed, 1x1 strided": layer(IMAGE, lambda: nn.ConvTranspose2d(4, 3, 1, 2)),
    "transposed, 1x1 cut": case(
        lambda s, x: s.layer(x), IMAGE,
        slack=("unlike numbers of weights",), layer=lambda: nn.ConvTranspose2d(4, 3, 1, padding=1),
    ),  # a shift would pass, since only what is outside is cut off
    "transposed, blocks": layer(IMAGE, lambda: nn.ConvTranspose2d(4, 3, 2, 2)),
    "transposed, grouped": layer(IMAGE, lambda: nn.ConvTranspose2d(4, 6, 3, groups=2)),
    "transposed, grouped, 1x1": layer(IMAGE, lambda: nn.ConvTranspose2d(4, 6, 1, groups=2)),
    "transposed, grouped, square": layer(IMAGE, lambda: nn.ConvTranspose2d(4, 4, 1, groups=2, bias=False)),
    "transposed, depthwise": layer(IMAGE, lambda: nn.ConvTranspose2d(4, 8, 2, groups=4)),
    "linear": layer((3, 4), lambda: nn.Linear(4, 5)),
    "linear, square": layer((4, 4), lambda: nn.Linear(4, 4)),
    "linear without bias": layer((3, 4), lambda: nn.Linear(4, 5, bias=False)),
    "linear of sequences": layer((2, 3, 4), lambda: nn.Linear(4, 5)),
    "linear of sequences, equal sizes": layer((4, 4, 4), lambda: nn.Linear(4, 4)),
    "linear of sequences without bias": layer((2, 3, 4), lambda: nn.Linear(4, 5, bias=False)),
    "linear of images": layer((2, 3, 2, 4), lambda: nn.Linear(4, 5)),
    "linear of one": layer((4,), lambda: nn.Linear(4, 5)),
    "linear after transposing": case(
        lambda s, x: s.layer(x.transpose(1, 2)).transpose(1, 2), SEQUENCE, layer=lambda: nn.Linear(4, 4)
    ),
    "linear of flattened images": case(
        lambda s, x: s.layer(x.flatten(1)), (2, 2, 3, 2), layer=lambda: nn.Linear(12, 5)
    ),
    "Conv1D": layer((2, 3, 4), Conv1D),
    "mm": case(lambda s, x: x @ s.weight, (3, 4), weight=weight(4, 5)),
    "mm, square": case(lambda s, x: x @ s.weight, (4, 4), weight=weight(4, 4)),
    "mm of a transpose": case(lambda s, x: x @ s.weight.t(), (4, 4), weight=weight(4, 4)),
    "mm from the left": case(lambda s, x: s.weight @ x, (4, 4), weight=weight(4, 4)),
    "mm of two": case(lambda s, x, y: x @ y, (3, 4), (4, 3)),
    "addmm weighted": case(
        lambda s, x: torch.addmm(s.bias, x, s.weight, beta=2, alpha=3), (3, 4),
        weight=weight(4, 5), bias=weight(5),
    ),
    "addmm of rows": case(
        lambda s, x: torch.addmm(s.bias, x, s.weight), (3, 4), weight=weight(4, 5), bias=weight(3, 1)
    ),
    "addmm of one number": case(
        lambda s, x: torch.addmm(s.bias, x, s.weight), (3, 4), weight=weight(4, 5), bias=weight(1)
    ),
    "addmm to data": case(lambda s, x, y: torch.addmm(y, x, s.weight), (3, 4), (3, 5), weight=weight(4, 5)),
    "called twice": case(twice, IMAGE, (1, 4, 6, 5), layer=lambda: nn.Conv2d(4, 3, 2)),
    "called twice, one in the other": case(
        lambda s, x: s.layer(s.layer(x)), IMAGE, layer=lambda: nn.Conv2d(4, 4, 1)
    ),
    "called on the same": case(lambda s, x: s.layer(x) + s.layer(x), IMAGE, layer=lambda: nn.Conv2d(4, 3, 2)),
    "weights of two layers": case(
        lambda s, x: F.conv2d(F.conv2d(x, s.weight, s.a), s.weight, s.b),
        IMAGE, weight=weight(4, 4, 1, 1), a=weight(4), b=weight(4),
    ),
    "weights there and back": case(
        lambda s, x: F.conv_transpose2d(F.conv2d(x, s.weight), s.weight), IMAGE, weight=weight(4, 4, 1, 1)
    ),
    "weights there and back, other sizes": case(
        lambda s, x: F.conv_transpose2d(F.conv2d(x, s.weight), s.weight), IMAGE, weight=weight(3, 4, 2, 2)
    ),
    "weights in groups and not": case(
        lambda s, x, y: (F.conv2d(x, s.weight, groups=2), F.conv2d(y, s.weight)),
        IMAGE, (2, 2, 3, 5), weight=weight(4, 2, 1, 1),
    ),
    "linear there and back": case(
        lambda s, x: F.linear(F.linear(x, s.weight), s.weight.t()), (3, 4), weight=weight(4, 4)
    ),
    "padded and not": case(
        lambda s, x: (F.conv2d(x, s.weight, s.bias), F.conv2d(x, s.weight, s.bias, padding=1)),
        IMAGE, weight=weight(3, 4, 2, 2), bias=weight(3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_claim(name):
    assert_claim(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_asked_without_need(name):
    assert_needed(CASES[name])
