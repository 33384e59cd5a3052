"""Forward passes that train nothing: evaluations, passes that belong to the training, and dummies."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD
from torch.optim.swa_utils import update_bn

from checkup.grown import Small, images
from checkup.watching.loops import batch, found, setting, step
from convscope.checkup.watching import watch


def severities(log, fault="evaluating-in-training-mode"):
    assert log.hearing.ended_by is None
    return [finding.severity for finding in log.findings if finding.fault == fault]


def mined(net, optimizer):
    x, y = batch()
    with torch.no_grad():
        chosen = F.cross_entropy(net(x), y, reduction="none").topk(8).indices
    optimizer.zero_grad()
    F.cross_entropy(net(x[chosen]), y[chosen]).backward()
    optimizer.step()


def stopped(net, optimizer):
    x, y = batch()
    target = net(x.flip(3)).detach()
    outputs = net(x)
    optimizer.zero_grad()
    (F.mse_loss(outputs, target) + F.cross_entropy(outputs, y)).backward()
    optimizer.step()


@pytest.mark.parametrize("one_step", [mined, stopped])
def test_passes_that_belong_to_every_step_are_no_evaluations(one_step):
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(12):
            one_step(net, optimizer)
    assert found(log) == {"evaluating-in-training-mode"}  # and no dummy before the first step
    assert severities(log) == ["advice"]
    assert log.run.interleaved.count >= 11
    assert log.run.evaluations.count == 0


def test_an_evaluation_beside_passes_that_belong_to_every_step():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for number in range(12):
            mined(net, optimizer)
            if number == 6:
                with torch.no_grad():
                    [net(images(8)) for _ in range(5)]
    assert severities(log) == ["error", "advice"]
    assert log.run.evaluations.count == 6  # with the one that belongs to the next step


def test_new_statistics_for_the_watched_network_are_no_evaluation():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(4):
            step(net, optimizer)
        update_bn([images(8)] * 3, net)
    assert found(log) == set()


@pytest.mark.parametrize(("rows", "expected"), [([5, 5, 5], ["error"]), ([4], ["advice"]), ([1, 1], [])])
def test_evaluations_with_gradients(rows, expected):
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for number in rows:
            for _ in range(6):
                step(net, optimizer)
            for _ in range(number):
                F.cross_entropy(net(images(8) + 1), torch.zeros(8, dtype=torch.long)).item()
        for _ in range(3):
            step(net, optimizer)
    assert severities(log) == expected


def test_a_loss_of_inner_features_trains():
    net, optimizer = setting()
    kept = []
    net.bn2.register_forward_hook(lambda module, args, output: kept.append(output))
    with watch(net, optimizer) as log:
        for _ in range(4):
            optimizer.zero_grad()
            net(images(8))
            kept.pop().square().mean().backward()
            optimizer.step()
    assert found(log) == set()
    assert log.run.patterns == {"FB": 4}


def test_two_optimizers_with_a_graph_that_outlives_a_step():
    net, first = setting()
    other = nn.Linear(4, 1)
    second = SGD(other.parameters(), 0.01)
    with watch(nn.ModuleList([net, other]), [first, second]) as log:
        for _ in range(4):
            fake = net(images(8))
            second.zero_grad()
            other(fake.detach()).square().mean().backward()
            second.step()
            first.zero_grad()
            other(fake).mean().backward()
            first.step()
    assert found(log) == set()


def test_zeros_move_a_variance_and_that_is_said():
    net = Small()
    optimizer = SGD(net.parameters(), 0.01)
    shadow = copy.deepcopy(net)
    with watch(net, optimizer) as log:
        net(torch.zeros(4, 3, 11, 9))
        step(net, optimizer)
    shadow(torch.zeros(4, 3, 11, 9))
    growths = {
        path: float(((layer.running_var + layer.eps) / (1 + layer.eps)).log().abs().max())
        for path, layer in shadow.named_modules()
        if isinstance(layer, nn.BatchNorm2d)
    }
    assert log.run.dummies.log_variance == pytest.approx(max(growths.values()), rel=1e-4)
