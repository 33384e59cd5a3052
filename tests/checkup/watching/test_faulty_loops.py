"""Loops with a fault, and what they are told."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD
from torch.utils.checkpoint import checkpoint

import convscope as cs
from checkup.grown import Small, images
from checkup.watching.loops import MINE, backward, batch, found, setting, step
from convscope.checkup.watching import watch


def test_an_evaluation_in_training_mode():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(3):
            step(net, optimizer)
        before = {name: buffer.clone() for name, buffer in net.named_buffers()}
        for _ in range(2):
            with torch.inference_mode():
                net(images(8) + 1)
        shift = (net.bn1.running_mean - before["bn1.running_mean"]).abs()
        sigma = (before["bn1.running_var"] + net.bn1.eps).sqrt()
        step(net, optimizer)
    assert found(log) == {"evaluating-in-training-mode"}
    stray = log.run.evaluations
    assert (stray.count, stray.before_steps, stray.layers) == (2, 3, ("bn1", "bn2", "bn3"))
    assert stray.shift >= float((shift / sigma).max()) * 0.5
    (finding,) = [f for f in log.findings if f.fault == "evaluating-in-training-mode"]
    assert (finding.severity, finding.address) == ("error", "self")


def test_the_shift_of_one_evaluation_is_exact():
    net, optimizer = setting()
    net.bn1.momentum = net.bn2.momentum = 1e-9
    with watch(net, optimizer) as log:
        step(net, optimizer)
        mean, variance = net.bn3.running_mean.clone(), net.bn3.running_var.clone()
        with torch.no_grad():
            net(images(8))
    expected = ((net.bn3.running_mean - mean) / (variance + net.bn3.eps).sqrt()).abs().max()
    assert log.run.evaluations.worst == "bn3"
    assert log.run.evaluations.shift == pytest.approx(float(expected), rel=1e-5)
    growth = ((net.bn3.running_var + net.bn3.eps) / (variance + net.bn3.eps)).log().abs().max()
    assert log.run.evaluations.log_variance == pytest.approx(float(growth), rel=1e-5)


def test_without_a_step_no_gradients_means_evaluation():
    net, _ = setting()
    with watch(net) as log, torch.no_grad():
        net(images(8))
    assert found(log) == {"evaluating-in-training-mode"}
    assert "no optimizer was given" in log.checkup().unchecked[0].reason


def test_dummies():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        net(torch.zeros(4, 3, 11, 9))
        with torch.no_grad():
            net(images(4))
        step(net, optimizer)
    assert log.run.dummies.count == 2
    assert log.run.dummies.constant == 1
    assert found(log) == {"dummy-forwards"}
    with watch(net, optimizer) as log:
        net.eval()
        net(images(4))
        net.train()
        step(net, optimizer)
    assert found(log) == set()


def test_an_evaluation_through_a_reentrant_checkpoint():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(4):
            optimizer.zero_grad()
            checkpoint(net, images(8).requires_grad_(), use_reentrant=True).sum().backward()
            optimizer.step()
        with torch.no_grad():
            for _ in range(3):
                checkpoint(net, images(8).requires_grad_(), use_reentrant=True)
        for _ in range(3):
            step(net, optimizer)
    assert log.run.evaluations.count == 3
    assert log.run.dummies.count == 0


def test_batches_of_two_stay_small_when_momentum_is_corrected():
    """Every batch has 18 values or fewer in a layer; a momentum for several updates doesn't mend that."""
    net, optimizer = setting()

    def loop():
        for _ in range(10):
            optimizer.zero_grad()
            for _ in range(4):
                x, y = batch(2)
                F.cross_entropy(net(x[:, :, :3, :3]), y).backward()
            optimizer.step()

    for remedy, corrected in (("correct_momentum(model, 4)", True), ("larger batches", False)):
        with watch(net, optimizer) as log:
            loop()
        (finding,) = [finding for finding in log.findings if finding.fault == "accumulated-batches"]
        assert finding.severity == "warning"
        assert remedy in finding.remedy
        assert ("correct_momentum" in finding.remedy) == corrected
        cs.norm.correct_momentum(net, 4)


def test_what_is_left_of_dummies_after_several_updates_a_step():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        with torch.no_grad():
            net(torch.zeros(2, 3, 11, 9))
        for _ in range(6):
            optimizer.zero_grad()
            for _ in range(4):
                x, y = batch()
                F.cross_entropy(net(x), y).backward()
            optimizer.step()
    (finding,) = [finding for finding in log.findings if finding.fault == "dummy-forwards"]
    left = next(each.value for each in finding.evidence if each.name == "their weight by now")
    assert left == pytest.approx(0.9**24)


def accumulate(net, optimizer, number, size, steps=12):
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(number):
            backward(net, size)
        optimizer.step()


def test_accumulation():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        accumulate(net, optimizer, 4, 16)
    assert log.run.accumulated == 4
    assert found(log) == {"accumulated-batches"}
    (finding,) = [f for f in log.findings if f.fault in MINE]
    assert finding.severity == "advice"
    cs.norm.correct_momentum(net, 4)
    with watch(net, optimizer) as log:
        accumulate(net, optimizer, 4, 16)
    assert found(log) == set()


def test_accumulation_of_tiny_batches_is_graver():
    net, optimizer = setting()
    net.bn3 = nn.BatchNorm2d(12)
    with watch(net, optimizer) as log:
        for _ in range(12):
            optimizer.zero_grad()
            for _ in range(4):
                flat = torch.randn(2, 3, 1, 1).expand(2, 3, 11, 9)  # an image is worth about one value
                F.cross_entropy(net(flat), torch.randint(0, 4, (2,))).backward()
            optimizer.step()
    (finding,) = [f for f in log.findings if f.fault == "accumulated-batches"]
    assert finding.severity == "warning"
    assert finding.effect > 1


def test_accumulation_and_checkpointing():
    net, optimizer = setting()

    def loop():
        for _ in range(12):
            optimizer.zero_grad()
            for _ in range(2):
                x, y = batch(8)
                F.cross_entropy(checkpoint(net, x, use_reentrant=False), y).backward()
            optimizer.step()

    for declared, expected in (
        (1, {"accumulated-batches", "recomputed-updates"}), (2, {"recomputed-updates"}), (4, set()),
    ):  # fmt: skip
        with cs.norm.correct_momentum(net, declared), watch(net, optimizer) as log:
            loop()
            assert {(norm.updates, norm.recomputed) for norm in log.run.norms} == {(2, 2)}
            assert found(log) == expected


@pytest.mark.parametrize("reentrant", [False, True])
def test_our_own_batch_norms_dont_move_when_recomputed(reentrant):
    net, optimizer = setting()
    cs.norm.convert(net, "convscope")
    with watch(net, optimizer) as log:
        for _ in range(5):
            optimizer.zero_grad()
            checkpoint(net, images(8).requires_grad_(), use_reentrant=reentrant).sum().backward()
            optimizer.step()
    assert {(norm.updates, norm.recomputed) for norm in log.run.norms} == {(1, 0)}
    assert found(log) == set()


def gan_steps(net, optimizer, other, generator):
    """The order of the well-known example: real, fake, step, and once more for the generator."""
    for _ in range(12):
        optimizer.zero_grad()
        net(images(16)).logsumexp(1).mean().backward()
        fake = generator(torch.randn(16, 3, 11, 9))
        (-net(fake.detach()).logsumexp(1).mean()).backward()
        optimizer.step()
        other.zero_grad()
        net(fake).logsumexp(1).mean().backward()
        other.step()


def test_real_and_generated_images_are_domains_and_not_accumulation():
    net, optimizer = setting(0.001)
    generator = nn.Conv2d(3, 3, 1)
    nn.init.constant_(generator.bias, 3.0)
    with watch(net, optimizer) as log:
        gan_steps(net, optimizer, SGD(generator.parameters(), 1e-6), generator)
    assert found(log) == {"shared-over-domains"}
    (finding,) = [f for f in log.findings if f.fault == "shared-over-domains"][:1]
    assert finding.address == "bn1"


def test_siamese_calls():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(12):
            optimizer.zero_grad()
            (net(images(16)) - net(images(16))).square().mean().backward()
            optimizer.step()
    assert log.run.patterns == {"FFB": 11}
    assert found(log) == set()
    assert {shift.calls for shift in log.run.call_shifts} == {2}


def test_penalties_on_gradients():
    net, optimizer = setting()

    def loop():
        for _ in range(3):
            optimizer.zero_grad()
            x = images(8).requires_grad_()
            outputs = net(x)
            (slope,) = torch.autograd.grad(outputs.sum(), x, create_graph=True)
            (outputs.square().mean() + slope.square().mean()).backward()
            optimizer.step()

    with watch(net, optimizer) as log:
        loop()
    assert log.run.input_gradients == 3
    assert found(log) == {"per-sample-gradients"}
    with watch(net, optimizer) as log, cs.expected("per-sample-gradients"):
        loop()
    assert found(log) == set()
    cs.norm.freeze(net)
    with watch(net, optimizer) as log:
        loop()
    assert found(log) == set()


def test_second_derivatives_by_parameters_are_no_per_sample_gradients():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(3):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(images(8)), torch.zeros(8, dtype=torch.long))
            slopes = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
            sum(slope.square().sum() for slope in slopes).backward()
            optimizer.step()
    assert log.run.input_gradients == 0
    assert found(log) == set()


def test_scales_that_run_away():
    torch.manual_seed(0)
    net = Small()
    optimizer = SGD([p for p in net.parameters() if p.dim() == 4], 0.1, weight_decay=5.0)
    with watch(net, optimizer) as log:
        for _ in range(20):
            step(net, optimizer)
    (finding,) = [f for f in log.findings if f.fault == "scale-drift"]
    assert (finding.severity, finding.address) == ("warning", "bn3")
    assert "conv3.weight by" in finding.why


def test_warm_up_is_no_drift():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for number in range(20):
            optimizer.param_groups[0]["lr"] = 0.02 * number / 20
            step(net, optimizer)
    assert found(log) == set()
