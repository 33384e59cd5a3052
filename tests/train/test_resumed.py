"""Runs that were interrupted, killed or finished, and go on: the same bits as without."""

import json
import random
import signal
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
from train.toy import SETTINGS, StopAt, ToyData, same_bits, toy_model, without_times

TOY = Path(__file__).with_name("toy.py")


@pytest.mark.parametrize("at", [1, 2, 3, 5, 6, 7, 11, 12, 17])
def test_interrupted_and_resumed_it_ends_with_the_same_bits_and_the_same_log(tmp_path, whole, at):
    out, progress = tmp_path / "run", StopAt(at)
    with pytest.raises(KeyboardInterrupt):
        cs.train(toy_model(), ToyData(), out=out, progress=progress, **SETTINGS)
    assert progress.stopped == 1
    leftover = out / ".checkpoint.safetensors.abc"
    leftover.touch()
    resumed = toy_model()
    for parameter in resumed.parameters():
        nn.init.zeros_(parameter) if at > 2 else None  # the checkpoint must bring every tensor
    run = cs.train(resumed, ToyData(), out=out, resume=True, **SETTINGS)
    assert same_bits(resumed, whole[0])
    assert without_times(run) == without_times(whole[1])
    assert read_run(out) == run
    assert not leftover.exists()
    assert [record.step for record in read_log(out / "log.jsonl").steps] == list(range(1, 19))
    for name in ("best", "final"):
        ours, theirs = (load_file(folder / f"{name}.safetensors") for folder in (out, whole[2]))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_interrupted_many_times_it_still_ends_with_the_same_bits(tmp_path, whole):
    out = tmp_path / "run"
    for at in (3, 4, 5, 9, 9, 14, 18):
        with pytest.raises(KeyboardInterrupt):
            cs.train(toy_model(), ToyData(), out=out, resume=True, progress=StopAt(at), **SETTINGS)
    model = toy_model()
    run = cs.train(model, ToyData(), out=out, resume=True, **SETTINGS)
    assert same_bits(model, whole[0])
    assert without_times(run) == without_times(whole[1])


def test_adamw_and_augmentation_resume_with_the_same_bits_too(tmp_path):
    settings = {**SETTINGS, "optimizer": "adamw", "learning_rate": 0.01, "clip_grad_norm": 1.0}
    plain, one, other = toy_model(), toy_model(), toy_model()
    cs.train(plain, ToyData(), out=tmp_path / "plain", **settings)
    settings["augment"] = "shift"
    cs.train(one, ToyData(), out=tmp_path / "one", **settings)
    with pytest.raises(KeyboardInterrupt):
        cs.train(toy_model(), ToyData(), out=tmp_path / "other", progress=StopAt(9), **settings)
    cs.train(other, ToyData(), out=tmp_path / "other", resume=True, **settings)
    assert same_bits(one, other)
    assert not same_bits(one, plain)


def _toy_process(**arguments):
    command = [sys.executable, str(TOY), json.dumps(arguments)]
    return subprocess.run(command, timeout=200, capture_output=True, text=True)


@pytest.mark.slow
def test_killed_at_a_random_step_and_resumed_it_ends_with_the_same_bits(tmp_path, whole):
    step = random.SystemRandom().randrange(1, 19)
    out = tmp_path / "run"
    killed = _toy_process(out=str(out), kill_at=step, **SETTINGS)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    model = toy_model()
    run = cs.train(model, ToyData(), out=out, resume=True, **SETTINGS)
    assert same_bits(model, whole[0]), f"killed at step {step}"
    assert without_times(run) == without_times(whole[1])
    assert sorted(file.name for file in out.iterdir()) == sorted(file.name for file in whole[2].iterdir())


def test_a_finished_run_resumes_to_itself_and_can_be_made_longer(tmp_path):
    settings = {**SETTINGS, "schedule": "constant"}
    long, resumed = toy_model(), toy_model()
    cs.train(long, ToyData(), out=tmp_path / "long", **{**settings, "epochs": 4})
    first = cs.train(toy_model(), ToyData(), out=tmp_path / "run", **settings)
    again = cs.train(toy_model(), ToyData(), out=tmp_path / "run", resume=True, **settings)
    assert again == first
    run = cs.train(resumed, ToyData(), out=tmp_path / "run", resume=True, **{**settings, "epochs": 4})
    assert same_bits(long, resumed)
    assert len(run.epochs) == 4
    assert read_run(tmp_path / "run") == run
    with pytest.raises(ConvscopeError, match=r"after 24 steps; expected at most 12, .*epochs=2"):
        cs.train(toy_model(), ToyData(), out=tmp_path / "run", resume=True, **{**settings, "epochs": 2})


def test_a_run_that_dies_in_its_first_step_goes_on_from_the_weights_that_it_began_with(tmp_path, whole):
    with pytest.raises(KeyboardInterrupt):
        cs.train(toy_model(), ToyData(), out=tmp_path / "r", progress=StopAt(1), **SETTINGS)
    model = toy_model()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    cs.train(model, ToyData(), out=tmp_path / "r", resume=True, **SETTINGS)
    assert same_bits(model, whole[0])
