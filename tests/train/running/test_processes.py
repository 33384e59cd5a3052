"""Runs of two gloo processes against runs of one, and against themselves after an interruption."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import convscope as cs
from convscope.core.errors import ConvscopeError
from convscope.train import read_log, read_run
from processes import in_processes
from train.toy import ToyData, toy_model

_TOY = Path(__file__).parent.with_name("toy.py")
SYNCHRONISED = {
    "epochs": 9, "batch_size": 7, "learning_rate": 0.02, "sync_batch_norm": True, "schedule": "constant",
}  # fmt: skip
EVERYTHING = {
    "epochs": 3, "batch_size": 10, "learning_rate": 0.01, "optimizer": "adamw", "accumulation": 2,
    "ema_decay": 0.9, "schedule": "plateau", "patience_epochs": 1, "precision": "amp-fp16",
    "clip_grad_norm": 0.5, "renormalise_radius": 0.15, "checkpoint_every": 3, "log_every": 2,
}  # fmt: skip


def _deep():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.Sequential(
            nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1),
            nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(72, 8), nn.BatchNorm1d(8), nn.Linear(8, 3),
        ).double()  # fmt: skip


class _FailAt:
    def __init__(self, step):
        self.step = step

    def after_step(self, model, step):
        if step == self.step:
            raise ZeroDivisionError


def _launched(rank, count=2):
    """The environment that torchrun gives a process, by which accelerate knows the others."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), ACCELERATE_USE_CPU="true")
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT="0")


def _work(rank, folder):
    _launched(rank)
    return (
        _synchronised(folder / "sync"),
        _interrupted(folder / "interrupted"),
        _accumulated(folder / "parts"),
        _idle(folder / "idle"),
        _lean(folder / "lean"),
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two processes has found, and their folder; one start for all tests."""
    folder = tmp_path_factory.mktemp("two")
    return in_processes(2, _work, folder, seconds=200), folder


def _synchronised(folder):
    model = _deep()
    run = cs.train(model, ToyData(), out=folder / "run", **SYNCHRONISED)
    names = [type(module).__name__ for module in model]
    return model.state_dict(), names, run.epochs


@pytest.mark.slow
def test_two_processes_with_synchronised_batch_norm_reproduce_one_with_the_whole_batch(found, tmp_path):
    """54 steps of 7 images, 3 on one process and 4 on the other."""
    model = _deep()
    plain = {**SYNCHRONISED, "sync_batch_norm": False}
    run = cs.train(model, ToyData(), out=tmp_path / "one", **plain)
    assert run.epochs[-1].step == 54
    assert read_log(found[1] / "sync" / "run" / "log.jsonl").start["processes"] == 2
    for (state, names, epochs), *_ in found[0]:
        assert names == [type(module).__name__ for module in model]
        for name, value in model.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=0, atol=1e-8)
        for ours, theirs in zip(epochs, run.epochs, strict=True):
            assert ours.validation_loss == pytest.approx(theirs.validation_loss, rel=1e-8)
    first = _deep().state_dict()
    distance = max(float((value - first[name]).abs().max()) for name, value in model.state_dict().items())
    assert distance > 0.05  # it has learnt, so that equality says something


def _interrupted(folder):
    whole, resumed = toy_model(), toy_model()
    cs.train(whole, ToyData(), out=folder / "whole", **EVERYTHING)
    for step in (5, 7):
        with pytest.raises(ZeroDivisionError):
            cs.train(
                toy_model(), ToyData(), out=folder / "r", resume=True, callbacks=[_FailAt(step)], **EVERYTHING
            )
    cs.train(resumed, ToyData(), out=folder / "r", resume=True, **EVERYTHING)
    return whole.state_dict(), resumed.state_dict()


@pytest.mark.slow
def test_two_processes_go_on_with_the_same_bits_and_agree(found):
    states, folder = [each[1] for each in found[0]], found[1] / "interrupted"
    for whole, resumed in states:
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert all(torch.equal(states[0][0][name], value) for name, value in states[1][0].items())
    for file in ("average", "checkpoint", "final"):
        ours, theirs = (load_file(folder / each / f"{file}.safetensors") for each in ("r", "whole"))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    runs = [read_run(folder / each) for each in ("r", "whole")]
    assert len({tuple(record.average_loss for record in run.epochs) for run in runs}) == 1


THREE = {"epochs": 3, "batch_size": 12, "learning_rate": 0.02, "checkpoint_every": 2}


def _three(rank, folder):
    _launched(rank, 3)
    whole, resumed = _deep().float(), _deep().float()
    cs.train(whole, ToyData(), out=folder / "whole", **THREE)
    with pytest.raises(ZeroDivisionError):
        cs.train(_deep().float(), ToyData(), out=folder / "r", callbacks=[_FailAt(6)], **THREE)
    cs.train(resumed, ToyData(), out=folder / "r", resume=True, **THREE)
    return whole.state_dict(), resumed.state_dict()


@pytest.mark.slow
def test_three_processes_go_on_with_the_same_bits(tmp_path):
    """Sums of three depend on their order, unlike those of two."""
    for whole, resumed in in_processes(3, _three, tmp_path, seconds=200):
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)


class _Alone:
    """Counts the micro-batches whose gradients aren't exchanged."""

    def __init__(self):
        self.count, self.inner = 0, nn.parallel.DistributedDataParallel.no_sync

    def __call__(self, wrapper):
        self.count += 1
        return self.inner(wrapper)


def _accumulated(folder):
    model = toy_model(norm=False, dropout=0).double()
    alone = _Alone()
    nn.parallel.DistributedDataParallel.no_sync = lambda wrapper: alone(wrapper)
    run = cs.train(
        model, ToyData(), out=folder / "run", epochs=2, batch_size=9, accumulation=2, ema_decay=0.7
    )
    return model.state_dict(), [record.average_loss for record in run.epochs], alone.count


@pytest.mark.slow
def test_two_processes_that_accumulate_have_the_gradients_of_the_whole_batch(found, tmp_path):
    model = toy_model(norm=False, dropout=0).double()
    run = cs.train(model, ToyData(), out=tmp_path / "one", epochs=2, batch_size=9, ema_decay=0.7)
    for _, _, (state, losses, num_alone), *_ in found[0]:
        assert num_alone == 8  # one of each two; the smaller last batches of 6 images aren't cut
        for name, value in model.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=0, atol=1e-12)
        assert losses == pytest.approx([record.average_loss for record in run.epochs], rel=1e-9)


class _Auxiliary(nn.Module):
    """A network whose second head has no part in the loss."""

    def __init__(self):
        super().__init__()
        self.body, self.head = toy_model(), nn.Linear(60, 3)

    def forward(self, images):
        return self.body(images), self.head(images.flatten(1))


def _idle(folder):
    try:
        cs.train(_Auxiliary(), ToyData(), out=folder, epochs=1, batch_size=8)
    except ConvscopeError as error:
        return str(error)


@pytest.mark.slow
def test_a_parameter_without_a_gradient_is_named_before_the_first_update(found):
    for *_, message, _ in found[0]:
        assert "the loss doesn't depend on head.weight, head.bias" in message
        assert "requires_grad_(False)" in message


def _lean(folder):
    """Two runs, one lean, over DistributedDataParallel with synchronised batch norm and accumulation."""
    models = []
    for is_lean in (False, True):
        models.append(toy_model())
        settings = {"epochs": 2, "batch_size": 9, "sync_batch_norm": True, "accumulation": 2, "lean": is_lean}
        cs.train(models[-1], ToyData(), out=folder / str(is_lean), **settings)
    return [model.state_dict() for model in models]


@pytest.mark.slow
def test_two_processes_train_lean_networks_to_the_same_bits(found):
    for *_, (plain, lean) in found[0]:
        assert all(torch.equal(lean[name], tensor) for name, tensor in plain.items())


@pytest.mark.slow
def test_two_processes_equal_one_when_nothing_depends_on_the_share(tmp_path):
    """Group norm and no dropout: two halves have the whole batch's mean gradient, ragged tails too."""
    script = (
        "import atexit, os, sys, torch; torch.set_num_threads(1); import convscope as cs; from toy import *\n"
        # The group's threads mustn't outlive the interpreter. What is registered first runs last.
        "atexit.register(lambda: torch.distributed.is_initialized() and os._exit(3))\n"
        "model = toy_model(norm=False, dropout=0).double()\n"
        "run = cs.train(model, ToyData(), out=sys.argv[1], epochs=2, batch_size=9, learning_rate=0.05)\n"
        "assert len(run.epochs) == 2\n"
        "again = cs.train(toy_model(), ToyData(), out=sys.argv[1] + '-again', epochs=1, batch_size=9)\n"
        "assert len(again.epochs) == 1\n"
    )
    (tmp_path / "two.py").write_text(f"import sys; sys.path.insert(0, {str(_TOY.parent)!r})\n" + script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ended = subprocess.run(
        [*command, str(tmp_path / "two.py"), str(tmp_path / "two")],
        timeout=200,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    model = toy_model(norm=False, dropout=0).double()
    one = cs.train(model, ToyData(), out=tmp_path / "one", epochs=2, batch_size=9, learning_rate=0.05)
    two = read_run(tmp_path / "two")
    assert read_log(tmp_path / "two" / "log.jsonl").start["processes"] == 2
    assert [step.step for step in two.steps] == [step.step for step in one.steps] == list(range(1, 11))
    for name, tensor in load_file(tmp_path / "two" / "final.safetensors").items():
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=0, atol=1e-12)
    for ours, theirs in zip(two.epochs, one.epochs, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-5)
        assert ours.train_accuracy == theirs.train_accuracy
        assert ours.validation_loss == pytest.approx(theirs.validation_loss, rel=1e-9)
        assert ours.validation_accuracy == theirs.validation_accuracy
