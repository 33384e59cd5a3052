"""Fourier transforms, sorting, searching, distances and interpolation against their formulas in numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import weight_norm

from convscope.cost import cost


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def _interpolated(mode, size, align=False):
    return lambda x: F.interpolate(x, size, mode=mode, align_corners=align)


CASES = {
    # 64 values per transform, log₂ 64 = 6: 5 · 64 · 6 complex, half of it real; 3 transforms.
    "complex": (lambda x: torch.fft.fft(torch.complex(x, x)).real, (3, 64), 3 * 1920),
    "real": (lambda x: torch.fft.rfft(x).real, (3, 64), 3 * 960),
    "real, two axes": (lambda x: torch.fft.rfft2(x).real, (3, 8, 8), 3 * 960),
    "back to real": (lambda x: torch.fft.irfft(torch.fft.rfft(x)), (3, 64), 2 * 3 * 960),
    # 3 rows of 9 values: four halvings of 9.
    "sort": (lambda x: x.sort(-1)[0], (3, 9), 27 * 4),
    "topk": (lambda x: x.topk(2)[0], (3, 8), 24 * 3),
    "bucketize": (lambda x: torch.bucketize(x, torch.arange(5.0)), (3, 4), 12 * 3),
    "distances": (lambda x: torch.cdist(x, x, p=1.0), (6, 4), 6 * 6 * 4 * 3),
    "linear": (_interpolated("linear", 10), (2, 3, 5), 3 * 2 * 3 * 10),
    "bilinear": (_interpolated("bilinear", (4, 6)), (2, 3, 5, 5), 9 * 2 * 3 * 24),
    "trilinear": (_interpolated("trilinear", (4, 6, 2)), (2, 3, 5, 5, 5), 21 * 2 * 3 * 48),
    "nearest exact": (lambda x: F.interpolate(x, 7, mode="nearest-exact"), (2, 3, 5), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operations(name):
    function, shape, expected = CASES[name]
    found = cost(Applied(function), shape, plan=None)
    assert (found.totals.macs, found.totals.elementwise_ops, found.uncounted) == (0, expected, ())


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weight_norm():
    net = weight_norm(nn.Linear(6, 4))
    assert cost(net, (2, 6), plan=None).totals.elementwise_ops == 3 * 24


def test_bags_of_embeddings():
    bags = nn.EmbeddingBag(10, 4)
    indices = torch.zeros(3, 5, dtype=torch.long)
    assert cost(bags, indices, plan=None).totals.elementwise_ops == 3 * 5 * 4
