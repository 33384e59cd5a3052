"""Loops without a fault, and deliberate uses: nothing is found."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.optim import LBFGS, SGD
from torch.optim.swa_utils import AveragedModel, update_bn

import convscope as cs
from checkup.grown import images
from checkup.watching.loops import batch, found, setting, step
from convscope.checkup.watching import watch


def test_a_plain_loop():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(12):
            step(net, optimizer)
    assert found(log) == set()
    assert log.run.num_steps == 12
    assert log.run.patterns == {"FB": 11}
    assert log.checkup().depth == "training"


def test_bfloat16_autocast_and_validation():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(2):
            net.train()
            for _ in range(6):
                x, y = batch()
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16):
                    loss = F.cross_entropy(net(x), y)
                loss.backward()
                optimizer.step()
            net.eval()
            with torch.no_grad():
                net(images(8))
    assert found(log) == set()
    assert {weight.name for weight in log.run.weights} == {"conv1.weight", "conv2.weight", "conv3.weight"}
    assert max(weight.invariance / weight.chance for weight in log.run.weights) < 0.1


def test_a_scaler_that_skips_steps():
    net, optimizer = setting()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with watch(net, optimizer) as log:
        for number in range(12):
            optimizer.zero_grad()
            x, y = batch()
            loss = F.cross_entropy(net(x), y) * (math.inf if number == 4 else 1)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert log.run.num_steps == 11
    assert found(log) == set()


@pytest.mark.parametrize("how", ["freeze", "by hand", "requires_grad"])
def test_a_frozen_backbone(how):
    net, optimizer = setting()
    if how == "freeze":
        cs.norm.freeze(net)
    with watch(net, optimizer) as log:
        for _ in range(2):
            net.train()
            if how != "freeze":
                for layer in (net.bn1, net.bn2, net.bn3):
                    layer.eval()
                    layer.requires_grad_(how == "by hand")
            for _ in range(6):
                step(net, optimizer)
            net.eval()
            with torch.no_grad():
                net(images(8))
    assert found(log) == set()
    assert {norm.frozen_steps for norm in log.run.norms} == {12}


def test_a_head_that_trains_on_features_in_evaluation_mode():
    net, _ = setting()
    optimizer = SGD(net.head.parameters(), 0.1)
    net.requires_grad_(False)
    net.head.requires_grad_(True)
    net.eval()
    with watch(net, optimizer) as log:
        for _ in range(5):
            step(net, optimizer)
    assert found(log) == set()
    assert log.run.num_steps == 5


def test_progressive_unfreezing():
    net, optimizer = setting()
    net.bn1.requires_grad_(False).eval()
    with watch(net, optimizer) as log:
        for _ in range(4):
            step(net, optimizer)
        net.bn1.requires_grad_(True)
        net.train()
        for _ in range(4):
            step(net, optimizer)
    assert found(log) == set()


def test_layers_that_cs_norm_unfreezes():
    net, optimizer = setting()
    frozen = cs.norm.freeze(net, affine=False)
    with watch(net, optimizer) as log:
        for _ in range(4):
            step(net, optimizer)
        frozen.undo()
        net.train()
        for _ in range(4):
            step(net, optimizer)
    assert {norm.frozen_steps for norm in log.run.norms} == {0}
    assert found(log) == set()


def test_deliberate_uses_are_declared():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(3):
            step(net, optimizer)
        with cs.expected("evaluating-in-training-mode"), torch.no_grad():
            net(images(8))
    assert found(log) == set()


def test_recalibration_and_averages_are_no_evaluations():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(3):
            step(net, optimizer)
        averaged = AveragedModel(net)
        update_bn([images(8)], averaged)
        cs.norm.recalibrate(net, [images(8)])
        cs.checkup(net, images(32))
    assert found(log) == set()


def test_frozen_averages_that_see_evaluations_in_training_mode():
    net, optimizer = setting()
    for layer in (net.bn1, net.bn2, net.bn3):
        layer.momentum = 0.0
    with watch(net, optimizer) as log:
        for _ in range(3):
            step(net, optimizer)
            with torch.no_grad():
                net(images(8))
    assert log.run.evaluations.count == 0


def test_sharpness_aware_steps_dont_accumulate():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(12):
            optimizer.zero_grad()
            x, y = batch()
            F.cross_entropy(net(x), y).backward()
            moved = [(p, 0.05 * p.grad) for p in net.parameters()]
            with torch.no_grad():
                for parameter, way in moved:
                    parameter.add_(way)
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            with torch.no_grad():
                for parameter, way in moved:
                    parameter.sub_(way)
            optimizer.step()
    assert log.run.patterns["FBZFB"] == 10
    assert found(log) == set()


def test_closures():
    net, _ = setting()
    optimizer = LBFGS(net.parameters(), lr=0.01, max_iter=3)

    def closure():
        optimizer.zero_grad()
        x, y = batch()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        return loss

    with watch(net, optimizer) as log:
        for _ in range(4):
            optimizer.step(closure)
    assert found(log) == set()
    assert any(note.what == "accumulated-batches" for note in log.checkup().unchecked)
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(12):
            optimizer.step(closure)
    assert log.run.patterns == {"FB": 11}
    assert log.run.weights[0].invariance < 1e-4  # of the gradient that the closure has made
