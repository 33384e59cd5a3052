"""Watching changes nothing, copes with wrappers and odd loops, and says what it can't do."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Adam

import convscope as cs
from cases import state_of
from checkup.grown import Small, images, loader
from checkup.watching.loops import backward, batch, found, setting, step
from convscope.checkup.watching import watch
from convscope.core.errors import ConvscopeError


def trained(watched, make_optimizer):
    torch.manual_seed(3)
    net = Small()
    optimizer = make_optimizer(net.parameters())
    before = set(net.__dict__)

    def loop():
        for _ in range(13):
            step(net, optimizer)
            net.eval()
            with torch.no_grad():
                net(images(4))
            net.train()

    if watched:
        with watch(net, optimizer, every=2, writer=lambda values, step: None) as log:
            loop()
        log.checkup()
    else:
        loop()
    assert set(net.__dict__) == before
    return state_of(net)


@pytest.mark.parametrize("make", [lambda p: SGD(p, 0.1, momentum=0.9), lambda p: Adam(p, 1e-3)])
def test_training_is_bit_identical(make):
    with_watch, without = (
        {k: v for k, v in trained(w, make).items() if "!identity" not in k} for w in (1, 0)
    )
    assert with_watch == without


def test_accelerate():
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=3)
    net, optimizer = setting()
    prepared, prepared_optimizer = accelerator.prepare(net, optimizer)
    with watch(prepared, prepared_optimizer) as log:
        for _ in range(36):
            with accelerator.accumulate(prepared):
                x, y = batch()
                accelerator.backward(F.cross_entropy(prepared(x), y))
                prepared_optimizer.step()
                prepared_optimizer.zero_grad()
    assert log.run.num_steps == 12
    assert log.run.accumulated == 3
    assert found(log) == {"accumulated-batches"}


def test_data_parallel_on_one_device():
    net, optimizer = setting()
    around = nn.DataParallel(net)
    with watch(around, optimizer) as log:
        for _ in range(3):
            step(around, optimizer)
    assert [norm.path for norm in log.run.norms] == ["bn1", "bn2", "bn3"]


def test_a_loop_that_raises():
    net, optimizer = setting()
    with pytest.raises(RuntimeError), watch(net, optimizer) as log:
        step(net, optimizer)
        net(torch.randn(2, 7, 5, 5))
    assert log.run.num_steps == 1
    assert not optimizer._optimizer_step_post_hooks
    assert log.checkup().depth == "training"


def test_watched_twice():
    net, optimizer = setting()
    with watch(net, optimizer) as outer:
        step(net, optimizer)
        with watch(net, optimizer) as inner:
            step(net, optimizer)
    with watch(net, optimizer) as after:
        step(net, optimizer)
    assert [log.run.num_steps for log in (outer, inner, after)] == [2, 1, 1]


def test_layers_that_change_in_the_middle():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        step(net, optimizer)
        net.bn2 = nn.BatchNorm2d(12)
        step(net, optimizer)
        cs.norm.convert(net, "group")
        step(net, optimizer)
    assert log.run.patterns == {"FB": 2}  # no batch norm is left to be seen in the third step
    assert log.run.num_steps == 3
    assert [norm.path for norm in log.run.norms] == ["bn1", "bn2", "bn3"]
    assert found(log) == set()


def test_parts_in_a_lightning_like_loop():
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Small()

    module = Module()
    optimizer = SGD(module.parameters(), 0.02)
    with watch(module, optimizer) as log:
        for _ in range(4):
            step(module.net, optimizer)
    assert [norm.path for norm in log.run.norms] == ["net.bn1", "net.bn2", "net.bn3"]
    assert log.run.patterns == {"FB": 4}


def test_two_optimizers_of_one_network():
    net, _ = setting()
    first, second = SGD(net.head.parameters(), 0.1), SGD([net.conv1.weight], 0.1)
    with watch(net, [first, second]) as log:
        for _ in range(12):
            net.zero_grad()
            backward(net)
            first.step()
            second.step()
    assert log.run.num_steps == 12
    assert log.run.patterns == {"FB": 11}


def test_an_optimizer_that_never_steps_and_a_network_that_never_runs():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        pass
    assert "made no step" in log.checkup().unchecked[0].reason
    with watch(net, optimizer) as log:
        optimizer.step()
    assert "didn't run" in log.checkup().unchecked[0].reason


def test_a_loss_that_is_nan():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(3):
            optimizer.zero_grad()
            (net(images(8)).sum() * math.nan).backward()
            optimizer.step()
    assert log.run.non_finite == 3
    notes = [note.reason for note in log.checkup().unchecked if "NaN" in note.reason]
    assert notes == ["gradients were NaN or infinite in 3 of 3 sampled steps"]
    assert all(isinstance(value, float) for value in log.metrics().values())


def test_a_network_without_batch_norm():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9 * 7, 4))
    optimizer = SGD(net.parameters(), 0.01)
    with watch(net, optimizer) as log:
        for _ in range(3):
            step(net, optimizer)
    assert log.run.num_steps == 3
    assert [(row.path, row.of) for row in log.percentiles] == [("0", "output"), ("3", "output")]
    assert "no batch norm module" in log.checkup().unchecked[0].reason


def test_bad_input():
    net, optimizer = setting()
    for arguments, said in (
        (("net",), "a torch.nn.Module"),
        ((net, "sgd"), "a torch.optim.Optimizer"),
        ((net, optimizer, 0), "a whole number from 1"),
        ((net, optimizer, True), "a whole number from 1"),
        ((net, optimizer, 10, 3), "a SummaryWriter"),
        ((torch.compile(net, backend="eager"), optimizer), "before torch.compile"),
    ):
        with pytest.raises(ConvscopeError, match=said), watch(*arguments):
            pass
    assert not optimizer._optimizer_step_post_hooks


def test_public_names():
    assert cs.watch is watch
    assert cs.expected.__name__ == "expected"
    assert {"watch", "expected"} <= set(dir(cs))


def test_copies_of_a_network_in_the_loop():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(3):
            step(net, optimizer)
            teacher = copy.deepcopy(net)
            with torch.no_grad():
                teacher(images(8))
    assert found(log) == set()


def test_a_loader_is_no_optimizer():
    with pytest.raises(ConvscopeError, match="optimizer of type DataLoader"), watch(Small(), loader()):
        pass


def test_a_log_is_printed_as_its_check_up():
    net = Small()
    with watch(net) as log:
        net(images(8))
    assert "Check-up of 3 batch norms" in str(log)
