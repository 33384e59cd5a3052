"""Padding is told from content, and followed to the layers' maps; statistics against explicit loops."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from checkup.grown import images
from convscope.checkup.measuring.batches import Batch
from convscope.checkup.measuring.observe import observe_data
from convscope.checkup.measuring.padding import PaddedSums, content_of
from convscope.checkup.measuring.population import Moments
from convscope.checkup.measuring.subject import Subject
from convscope.checkup.plan import CheckupPlan


def _batch(x):
    return Batch((x,), {}, None, len(x))


def _ragged(lengths, total, channels=3, value=0.0, leading=False):
    x = torch.randn(len(lengths), channels, total)
    for sample, length in zip(x, lengths, strict=True):
        if leading:
            sample[:, : total - length] = value
        else:
            sample[:, length:] = value
    return x


@pytest.mark.parametrize("leading", [False, True])
@pytest.mark.parametrize("value", [0.0, -1.7])
def test_sequences_of_several_lengths(value, leading):
    lengths = [9, 4, 6, 9]
    content = content_of(_batch(_ragged(lengths, 9, value=value, leading=leading)))
    assert (content.high - content.low).flatten().tolist() == lengths
    assert content.low.flatten().tolist() == ([0, 5, 3, 0] if leading else [0] * 4)
    assert content.padded_share == pytest.approx(1 - 28 / 36)


def test_channels_may_lie_last_and_tokens_have_none():
    content = content_of(_batch(_ragged([9, 4, 6, 9], 9).transpose(1, 2)))
    assert content.high.flatten().tolist() == [9, 4, 6, 9]
    tokens = torch.randint(1, 50, (3, 8))
    tokens[1, 3:] = 0
    tokens[2, 6:] = 0
    assert content_of(_batch(tokens)).high.flatten().tolist() == [8, 3, 6]


def test_pictures_of_several_sizes_and_a_constant_per_channel():
    x = torch.randn(3, 3, 12, 10)
    black = torch.tensor([-2.1, -2.0, -1.8]).reshape(3, 1, 1)
    x[0, :, 7:], x[1, :, :, 6:], x[2, :, 10:], x[2, :, :, 8:] = black, black, black, black
    content = content_of(_batch(x))
    assert content.high.tolist() == [[7, 10], [12, 6], [10, 8]]
    assert content.low.tolist() == [[0, 0]] * 3
    assert content.padded_share == pytest.approx(1 - (70 + 72 + 80) / 360)


def _dark_corner():
    x = images(8, (16, 16))
    x[:, :, 10:, 10:] = -2.0
    return x


def _letterboxed():
    x = images(8, (16, 16))
    x[:, :, 12:] = 0.0
    return x


def _a_little():
    x = images(8, (16, 16))
    x[0, :, 14:] = 0.0
    return x


def _almost_constant():
    x = _ragged([9, 4, 6, 9], 9)
    return torch.where(x == 0, 1e-6 * torch.randn_like(x), x)


def _digits():
    from sklearn.datasets import load_digits

    return torch.tensor(load_digits().images[:64]).float().unsqueeze(1)


@pytest.mark.parametrize(
    "make", [_dark_corner, _letterboxed, _a_little, _almost_constant, _digits, lambda: images(8, (16, 16)),
             lambda: torch.randn(4, 5, 2), lambda: torch.zeros(4, 3, 8), lambda: torch.randn(5, 7),
             lambda: torch.randn(1, 3, 8)],
)  # fmt: skip
def test_what_is_no_padding(make):
    assert content_of(_batch(make())) is None


def test_a_mask_follows_to_smaller_maps_by_position():
    content = content_of(_batch(_ragged([12, 5, 8, 12], 12)))
    mask = content.mask((4, 7, 6))
    for sample, length in enumerate([12, 5, 8, 12]):
        for position in range(6):
            assert bool(mask[sample, position]) == (int((position + 0.5) * 2) < length)
    assert torch.equal(content.mask((48, 7)), content.mask((4, 1, 12)).flatten())
    assert content.mask((4, 7, 1)) is None  # pooled
    assert content.mask((4, 7, 6, 6)) is None
    assert content.mask((8, 7, 6)) is None


def test_statistics_are_those_of_all_and_of_the_content():
    sums, everything, content = PaddedSums(), [], []
    for lengths in ([9, 4, 6], [9, 9, 9], [3, 9, 2]):
        x = _ragged(lengths, 9, channels=2, value=3.0)
        batch = Moments()
        values = x.double().movedim(1, 0).reshape(2, -1)
        batch.merge(values.shape[1], values.mean(1), values.var(1, correction=0) * values.shape[1])
        found = content_of(_batch(x))
        sums.add(x, batch, None if found is None else found.mask(tuple(x.shape)))
        everything += [x[i, :, p].double().numpy() for i in range(3) for p in range(9)]
        content += [x[i, :, p].double().numpy() for i in range(3) for p in range(lengths[i])]
    everything, content = np.array(everything), np.array(content)
    facts = sums.facts(eps=0.01)
    variance = content.var(0) + 0.01
    assert facts.share == pytest.approx(1 - len(content) / len(everything))
    assert facts.mean_shift == pytest.approx(
        np.abs((everything.mean(0) - content.mean(0)) / variance**0.5).max()
    )
    assert facts.variance_shift == pytest.approx(np.abs(np.log((everything.var(0) + 0.01) / variance)).max())


def test_no_padding_no_facts():
    sums, batch = PaddedSums(), Moments()
    batch.merge(4, torch.zeros(1), torch.ones(1))
    sums.add(torch.zeros(4, 1), batch, None)
    assert sums.facts(1e-5) is None


def test_through_a_network():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU()).train()
    pictures = torch.cat(
        [F.pad(images(4, (size, 16)), (0, 0, 0, 16 - size), value=-9.0) for size in (16, 8, 6)]
    )
    (norm,) = observe_data(Subject(net, None, None, None, CheckupPlan()), pictures).norms
    assert norm.inputs.padded.share == pytest.approx(1 - (8 + 4 + 3) / 24)
    x = net[0](pictures).detach().double()
    content = torch.cat([x[:4].flatten(2), x[4:8, :, :4].flatten(2), x[8:, :, :3].flatten(2)], 2)
    shift = (x.mean((0, 2, 3)) - content.mean((0, 2))).abs() / (
        content.var((0, 2), correction=0) + 1e-5
    ).sqrt()
    assert norm.inputs.padded.mean_shift == pytest.approx(float(shift.max()), rel=1e-6)
