"""Percentiles of a run's layers: the same as by hand, through logs and resumption."""

import dataclasses

import pytest
import torch
from torch import nn

from convscope.train.running.watched import Watched, joined


def _net():
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())


def _global_hooks():
    return torch.nn.modules.module._global_forward_hooks


def _trained(net, steps, first=0, known=()):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    outputs = []
    curves = Watched(net, first + steps, known, first)
    for step in range(first, first + steps):
        x = torch.randn(8, 3, 6, 6)
        with torch.no_grad():
            mean_C, variance_C = net[0](x).mean((0, 2, 3)), net[0](x).var((0, 2, 3), correction=0)
            normed = (net[0](x) - mean_C[:, None, None]) / (variance_C[:, None, None] + 1e-5).sqrt()
            outputs.append(normed * net[1].weight[:, None, None] + net[1].bias[:, None, None])
        optimizer.zero_grad()
        with curves.step(step):
            net(x).square().sum().backward()
            optimizer.step()
        assert not _global_hooks()
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


@pytest.mark.parametrize(
    ("norm", "paths"),
    [
        (nn.BatchNorm2d(4), ["1"]),
        (nn.GroupNorm(2, 4), ["1"]),
        (nn.InstanceNorm2d(4), ["1"]),
        (nn.Identity(), ["0", "4"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_norms_are_looked_at_or_without_any_what_multiplies(norm, paths):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    curves = Watched(net, 1, (), 0)
    with curves.step(0):
        net(torch.randn(8, 3, 6, 6)).sum().backward()
    assert [row.path for row in curves.news()] == paths


def test_a_network_that_cannot_be_watched_has_none():
    net = _net()
    net._compiled_call_impl = net._call_impl  # as net.compile() leaves it
    curves = Watched(net, 3, (), 0)
    with curves.step(0):
        assert not _global_hooks()
    assert curves.news() == []


def test_the_first_ten_steps_are_looked_at_then_every_tenth_or_sixtieth_of_the_run():
    def looked_at(total, start=0):
        net, seen = _net(), []
        curves = Watched(net, total, (), start)
        for step in range(start, total):
            with curves.step(step):
                seen += [step] * bool(_global_hooks())
        return seen

    assert looked_at(35) == [*range(10), 10, 20, 30]
    assert looked_at(1300)[10:13] == [21, 42, 63]
    assert looked_at(35, start=5) == [*range(5, 10), 10, 20, 30]


def test_a_pass_that_isnt_training_isnt_looked_at():
    net = _net()
    curves = Watched(net, 1, (), 0)
    with curves.step(0):
        with torch.no_grad():
            net(torch.randn(2, 3, 6, 6))
        net.eval()(torch.randn(2, 3, 6, 6)).sum().backward()
    assert curves.news() == []
