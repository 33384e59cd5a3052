"""Percentiles of a run's layers: the same as by hand, through logs and resumption."""

import dataclasses

import pytest
import torch
from torch import nn

from convscope.train.running.watched import joined, watched


def _net():
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())


def _trained(net, steps, first=0, known=()):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    outputs = []
    with watched(net, optimizer, range(first, first + steps), known) as curves:
        for _ in range(steps):
            x = torch.randn(8, 3, 6, 6)
            with torch.no_grad():
                mean_C, variance_C = net[0](x).mean((0, 2, 3)), net[0](x).var((0, 2, 3), correction=0)
                normed = (net[0](x) - mean_C[:, None, None]) / (variance_C[:, None, None] + 1e-5).sqrt()
                outputs.append(normed * net[1].weight[:, None, None] + net[1].bias[:, None, None])
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
        first_news, second_news = curves.news(), curves.news()
    assert second_news == []
    return first_news, outputs


def test_percentiles_are_those_of_what_the_non_linearity_reads():
    (row,), outputs = _trained(_net(), 6)
    assert (row.path, row.of, row.steps) == ("1", "output", (0, 1, 2, 3, 4, 5))
    for low, median, high, output in zip(row.low, row.median, row.high, outputs):
        expected = torch.quantile(output[:, row.channel].reshape(-1), torch.tensor([0.15, 0.5, 0.85]))
        assert (low, median, high) == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_run_that_goes_on_looks_at_the_same_channel():
    net = _net()
    earlier, _ = _trained(net, 3)
    other = dataclasses.replace(earlier[0], channel=(earlier[0].channel + 1) % 4)
    later, _ = _trained(net, 4, first=3, known=[[other]])
    assert later[0].channel == other.channel
    assert later[0].steps == (3, 4, 5, 6)
    (whole,) = joined([[other], later])
    assert whole.steps == tuple(range(7))
    assert whole.median == other.median + later[0].median


def test_a_network_that_cannot_be_watched_has_none():
    net = _net()
    net._compiled_call_impl = net._call_impl  # as net.compile() leaves it
    with watched(net, torch.optim.SGD(net.parameters(), lr=0.1), range(3), ()) as curves:
        assert curves.news() == []
