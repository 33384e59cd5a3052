"""The second counter, against arithmetic by hand."""

import torch
import torch.nn.functional as F
from torch import nn

from cost.independent_count import count


def _count(net, *shapes, loss=None):
    found = count(net.to("meta"), *(torch.empty(shape, device="meta") for shape in shapes), loss=loss)
    assert found.unknown == ()
    return found.forward, found.to_input, found.to_weight, found.params


def test_first_layers_frozen_ones_and_unused_results():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.frozen = nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 6, 1, groups=2, bias=False)
            self.frozen.requires_grad_(False)
            self.head, self.unused = nn.Linear(6, 5), nn.Linear(6, 7)

        def forward(self, x):
            x = F.relu(self.frozen(self.stem(x)), inplace=True).mean((2, 3))
            self.unused(x)
            return F.relu(self.head(x), inplace=True)

    stem, frozen, head, unused = 2 * 36 * 4 * 27, 2 * 36 * 6 * 2, 2 * 30, 2 * 42
    params = 4 * 27 + 12 + 35 + 49
    assert _count(Net(), (2, 3, 8, 8)) == (stem + frozen + head + unused, frozen + head, stem + head, params)


def test_attention_einstein_sums_and_recurrence():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
            self.memory = nn.LSTM(6, 4, batch_first=True)
            self.weight = nn.Parameter(torch.ones(4, 3))

        def forward(self, x):
            x = self.attention(x, x, x)[0]
            return torch.einsum("btc,co->bto", self.memory(x)[0], self.weight)

    projections, last, attention = 10 * 18 * 6, 10 * 6 * 6, 2 * 2 * 25 * 6
    memory, product = 10 * 16 * (6 + 4), 10 * 4 * 3
    forward = projections + last + attention + memory + product
    to_input, to_weight = last + 2 * attention + memory + product, projections + last + memory + product
    params = 4 * 36 + 24 + 16 * 10 + 32 + 12
    assert _count(Net(), (2, 5, 6)) == (forward, to_input, to_weight, params)


def test_a_product_without_a_formula_is_named():
    net = nn.Bilinear(3, 4, 5)
    assert count(net, torch.zeros(2, 3), torch.zeros(2, 4)).unknown == ("bilinear",)
