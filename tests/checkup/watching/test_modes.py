"""Training in evaluation mode, and layers that are put into it and woken again."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD

import convscope as cs
from checkup.grown import images
from checkup.watching.loops import MINE, batch, found, setting, step
from convscope.checkup.watching import watch


def test_training_in_evaluation_mode():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        step(net, optimizer)
        net.eval()
        for _ in range(4):
            step(net, optimizer)
    assert found(log) == {"training-in-evaluation-mode"}
    steps = log.run.evaluation_steps
    assert (steps.count, steps.norms, steps.affine, steps.share, steps.dropouts) == (4, 3, 3, 1.0, 1)


@pytest.mark.parametrize("first", ["head", "rest"])
def test_training_in_evaluation_mode_by_two_optimizers(first):
    net, _ = setting()
    head = list(net.head.parameters())
    rest = [parameter for name, parameter in net.named_parameters() if not name.startswith("head")]
    optimizers = [SGD(head, 0.02), SGD(rest, 0.02)][:: 1 if first == "head" else -1]
    with watch(net, optimizers) as log:
        net.eval()
        for _ in range(4):
            net.zero_grad()
            x, y = batch()
            F.cross_entropy(net(x), y).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    assert found(log) == {"training-in-evaluation-mode"}
    assert (log.run.evaluation_steps.count, log.run.evaluation_steps.share) == (4, 1.0)


def test_parts_that_stay_in_evaluation_mode():
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    decoder = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    net = nn.ModuleList([encoder, decoder])
    optimizer = SGD(net.parameters(), 0.01)
    with watch(net, optimizer) as log:
        for number in range(6):
            optimizer.zero_grad()
            decoder(encoder(images(8))).square().mean().backward()
            optimizer.step()
            if number == 1:
                encoder.eval(), decoder.eval()
    assert found(log) == {"training-in-evaluation-mode"}
    assert log.run.evaluation_steps.count == 4


def test_the_remedy_for_deliberate_training_in_evaluation_mode():
    net, optimizer = setting()
    cs.norm.freeze(net.eval(), affine=False)
    net.drop.p = 0.0
    with watch(net, optimizer) as log:
        for _ in range(4):
            step(net, optimizer)
    assert found(log) == set()


def test_attacks_in_evaluation_mode_are_no_training():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(4):
            net.eval()
            x = images(8).requires_grad_()
            F.cross_entropy(net(x), torch.zeros(8, dtype=torch.long)).backward()
            net.train()
            step(net, optimizer)
    assert found(log) == set()


def test_a_freeze_that_is_undone():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        net.bn2.eval()
        for _ in range(3):
            step(net, optimizer)
        before = net.bn2.running_mean.clone()
        sigma = (net.bn2.running_var + net.bn2.eps).sqrt()
        net.train()
        for _ in range(2):
            step(net, optimizer)
    (norm,) = [norm for norm in log.run.norms if norm.undone_at is not None]
    assert (norm.path, norm.frozen_steps, norm.undone_at) == ("bn2", 3, 4)
    assert norm.undone_shift == pytest.approx(float(((net.bn2.running_mean - before) / sigma).abs().max()))
    (finding,) = [f for f in log.findings if f.fault in MINE]
    assert (finding.fault, finding.address) == ("freeze-undone", "bn2")
    assert 'cs.norm.freeze(model, only="bn2")' in finding.remedy


def test_a_freeze_before_the_watch_that_is_undone():
    net, optimizer = setting()
    net.bn2.eval()
    with watch(net, optimizer) as log:
        net.train()
        step(net, optimizer)
    assert found(log) == {"freeze-undone"}
