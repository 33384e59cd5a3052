"""Deliberate uses that look like faults: many passes for one loss, unfreezing, refilling statistics."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD

from checkup.grown import Small, images
from checkup.watching.loops import found, setting, step
from convscope.checkup.watching import watch

NORMS = ("bn1", "bn2", "bn3")


def in_parts(net, x):
    """The network's forward pass, its layers called one by one."""
    x = torch.relu(net.bn1(net.conv1(x)))
    x = torch.relu(net.bn2(net.conv2(x)))
    return net.head(torch.relu(net.bn3(net.conv3(x))).mean((2, 3)))


def test_many_passes_for_one_loss():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(4):
            optimizer.zero_grad()
            frames = torch.stack([net(images(2)) for _ in range(80)])
            F.cross_entropy(frames.mean(0), torch.tensor([0, 1])).backward()
            optimizer.step()
    assert found(log) == set()
    assert log.run.patterns == {"F" * 80 + "B": 4}


def test_an_evaluation_with_many_batches_and_gradients_is_counted_whole():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for number in range(6):
            step(net, optimizer)
            if number == 2:
                [net(images(2)) for _ in range(100)]
    assert found(log) == {"evaluating-in-training-mode"}
    assert log.run.evaluations.count == 100


def test_chunks_that_run_twice():
    """Representations without gradients first, then again with them, as for a contrastive loss."""
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(6):
            chunks = images(96).split(8)
            with torch.no_grad():
                outputs = torch.cat([net(chunk) for chunk in chunks])
            outputs.requires_grad_()
            (outputs @ outputs.T).square().mean().backward()
            optimizer.zero_grad()
            for chunk, slope in zip(chunks, outputs.grad.split(8), strict=True):
                net(chunk).backward(slope)
            optimizer.step()
    assert {finding.severity for finding in log.findings if finding.fault != "young-statistics"} == {"advice"}
    assert log.run.evaluations.count == log.run.dummies.count == 0
    assert log.run.interleaved.count == 72


def test_a_network_that_is_called_layer_by_layer():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(12):
            with torch.no_grad():
                in_parts(net, images(8))
            optimizer.zero_grad()
            F.cross_entropy(in_parts(net, images(16)), torch.zeros(16, dtype=torch.long)).backward()
            optimizer.step()
    assert [f.severity for f in log.findings if f.fault == "evaluating-in-training-mode"] == ["advice"]
    assert log.run.interleaved.count == 12
    assert log.run.patterns == {"FB": 11}


def precise(net):
    """Averages of batch statistics, as fvcore's precise BN takes them."""
    norms = [net.get_submodule(name) for name in NORMS]
    momenta = [norm.momentum for norm in norms]
    means = [[] for _ in norms]
    for norm in norms:
        norm.momentum = 1.0
    for _ in range(5):
        net(images(8))
        [seen.append(norm.running_mean.clone()) for seen, norm in zip(means, norms, strict=True)]
    for norm, seen, momentum in zip(norms, means, momenta, strict=True):
        norm.running_mean.copy_(torch.stack(seen).mean(0))
        norm.momentum = momentum


def refilled(net):
    for name in NORMS:
        net.get_submodule(name).reset_running_stats()
    for _ in range(5):
        net(images(8))


@pytest.mark.parametrize("estimate", [precise, refilled])
def test_statistics_that_are_estimated_anew(estimate):
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(2):
            for _ in range(6):
                step(net, optimizer)
            with torch.no_grad():
                estimate(net)
    assert found(log) == set()


def test_after_that_evaluations_are_seen_again():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        step(net, optimizer)
        with torch.no_grad():
            refilled(net)
        for _ in range(3):
            step(net, optimizer)
        with torch.no_grad():
            net(images(8))
    assert log.run.evaluations.count == 1


def test_an_optimizer_that_has_put_averages_in_place():
    """Schedule-free ones do so for evaluation; statistics of these weights are taken in training mode."""
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(6):
            step(net, optimizer)
        for group in optimizer.param_groups:
            group["train_mode"] = False
        with torch.no_grad():
            for _ in range(5):
                net(images(8))
    assert found(log) == set()


def asleep(net, layers=NORMS):
    net.train()
    for name in layers:
        net.get_submodule(name).eval()


def by_another_optimizer(net):
    yield SGD(net.head.parameters(), 0.02)
    yield SGD(net.parameters(), 0.02)


def by_rate(net):
    optimizer = SGD(net.parameters(), 0.0)
    yield optimizer
    optimizer.param_groups[0]["lr"] = 0.02
    yield optimizer


@pytest.mark.parametrize("phases", [by_another_optimizer, by_rate])
def test_layers_that_are_unfrozen_on_purpose(phases):
    net, _ = setting()
    optimizers = list(phases(net))
    if phases is by_rate:
        optimizers[0].param_groups[0]["lr"] = 0.0
    with watch(net, list(dict.fromkeys(optimizers))) as log:
        asleep(net)
        for _ in range(4):
            step(net, optimizers[0])
        optimizers[1].param_groups[0]["lr"] = 0.02
        net.train()
        for _ in range(4):
            step(net, optimizers[1])
    assert found(log) == set()


def test_an_optimizer_of_other_layers_between_does_not_hide_a_freeze_that_is_undone():
    net, _ = setting()
    whole, other = SGD(net.parameters(), 0.02), SGD([nn.Parameter(torch.zeros(1))], 0.02)
    with watch(net, [whole, other]) as log:
        asleep(net)
        for _ in range(3):
            step(net, whole)
            step(net, other)
        net.train()
        for _ in range(3):
            step(net, whole)
            step(net, other)
    assert found(log) == {"freeze-undone"}


@pytest.mark.parametrize(("every", "expected"), [(1, set()), (4, {"freeze-undone"})])
def test_layers_that_come_and_go(every, expected):
    """Step by step it is the loop's own doing; for whole epochs it is a freeze that something undoes."""
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for number in range(8 * every):
            net.train() if (number // every) % 2 else asleep(net)
            step(net, optimizer)
    assert found(log) == expected


class WithTarget(nn.Module):
    """A network and its momentum encoder, which runs in training mode."""

    def __init__(self):
        super().__init__()
        self.online = Small()
        self.target = copy.deepcopy(self.online).requires_grad_(False)

    def forward(self, x):
        with torch.no_grad():
            target = self.target(x.flip(3))
        return F.mse_loss(self.online(x), target)


@pytest.mark.parametrize("follows", [True, False])
def test_a_momentum_encoder_is_not_frozen(follows):
    torch.manual_seed(0)
    net = WithTarget()
    optimizer = SGD(net.online.parameters(), 0.02)
    with watch(net, optimizer) as log:
        for _ in range(6):
            optimizer.zero_grad()
            net(images(16)).backward()
            optimizer.step()
            with torch.no_grad():
                for mine, its in zip(net.target.parameters(), net.online.parameters(), strict=True):
                    mine.lerp_(its, 0.1 * follows)
    kept = [finding.address for finding in log.findings if finding.fault == "frozen-but-tracking"]
    assert kept == ([] if follows else [f"target.{name}#1" for name in NORMS])


def test_a_critic_that_trains_by_turns_is_not_frozen():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(6):
            net.requires_grad_(True)
            step(net, optimizer)
            net.requires_grad_(False)
    assert "frozen-but-tracking" not in {finding.fault for finding in log.findings}
