"""Real processes, killed with SIGKILL at chosen and at random moments, and resumed until they are done."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from convscope.train import read_log, read_run

SCRIPT = Path(__file__).with_name("killable.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
SETTINGS = {
    "epochs": 3, "batch_size": 8, "learning_rate": 0.05, "checkpoint_every": 2, "log_every": 3,
    "augment": "shift", "ema_decay": 0.9, "accumulation": 2, "clip_grad_norm": 1.0, "keep_epochs": [2],
}  # fmt: skip


class _Session:
    """A training process, forked by a server."""

    def __init__(self, server, files):
        self._server, self._files = server, files
        self.pid = int(server.stdout.readline())

    def ended(self):
        code = int(self._server.stdout.readline())
        return code, *(self._files[name].read_text() for name in ("said", "errors"))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts a session; one at a time."""
    said = {name: tmp_path_factory.mktemp("said") / name for name in ("said", "errors")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
    server = subprocess.Popen([sys.executable, str(SCRIPT)], **pipes)

    def started(out, **how):
        given = {**_given(out, **how), **{name: str(file) for name, file in said.items()}}
        server.stdin.write(json.dumps(given) + "\n")
        server.stdin.flush()
        return _Session(server, said)

    yield started
    server.stdin.close()
    server.wait(60)
    server.stdout.close()


@pytest.fixture(scope="module")
def finish(start):
    """Runs a session that comes to its end."""

    def finished(out, **how):
        code, said, errors = start(out, **how).ended()
        assert (code, "finished 18" in said) == (0, True), errors

    return finished


def _given(out, *, moment=None, rank=0, processes=1, **changes):
    scrambled = (out / "checkpoint.safetensors").exists()
    settings = {**SETTINGS, **changes}
    return {
        "out": str(out), "moment": moment, "rank": rank, "processes": processes, "settings": settings,
        "scrambled": scrambled,
    }  # fmt: skip


def _two_finished(start, out):
    code, _, errors = start(out, processes=2).ended()
    assert code == 0, errors
    assert len(read_log(out / "log.jsonl").steps) == 15  # two images left over are too few for two processes


def _children(pid):
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _numbers(out):
    """All that a run's log says but times and speeds, and what it began from."""
    log = read_log(out / "log.jsonl")
    epochs = [vars(record) for record in log.epochs]
    for record in epochs:
        del record["seconds"], record["images_per_second"]
    return [vars(record) for record in log.steps], epochs, log.ended


def _assert_same(out, whole):
    files = {file.name for file in whole.iterdir()}
    assert {file.name for file in out.iterdir()} == files
    for name in files:
        if name.endswith(".safetensors"):
            ours, theirs = load_file(out / name), load_file(whole / name)
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    assert _numbers(out) == _numbers(whole)
    assert read_run(out).confusion == read_run(whole).confusion


@pytest.fixture(scope="module")
def whole(tmp_path_factory, finish):
    """A run of one process that nobody interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finish(out)
    return out


@pytest.fixture(scope="module")
def whole_of_two(tmp_path_factory, start):
    """A run of two processes that nobody interrupted."""
    out = tmp_path_factory.mktemp("two") / "run"
    _two_finished(start, out)
    return out


@pytest.mark.slow
def test_killed_three_times_it_ends_with_the_same_bits(tmp_path, whole, start, finish):
    out = tmp_path / "run"
    for moment in ("checkpoint 3", "before checkpoint 4", "log 3"):
        code, _, errors = start(out, moment=moment).ended()
        assert (code, f"killed at {moment}" in errors) == (-signal.SIGKILL, True), errors
    finish(out)
    _assert_same(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "moments",
    [
        ["checkpoint 1", "step 1", "step 5", "step 17", "step 18"],
        ["best 1", "before best 1", "step 7", "truncated 1", "before truncated 1"],
        ["average 1", "average 2", "confusion 1", "epoch-2 1", "before epoch-2 1"],
        ["log 1", "log 2", "log 4", "final 1", "before final 1"],
    ],
)
def test_killed_at_chosen_moments_it_ends_with_the_same_bits(tmp_path, whole, start, finish, moments):
    """Some moments don't come in every session; those that do must be survived."""
    out, killed = tmp_path / "run", 0
    for moment in moments:
        killed += start(out, moment=moment).ended()[0] == -signal.SIGKILL
    assert killed >= 3
    finish(out)
    _assert_same(out, whole)


@pytest.mark.slow
def test_killed_twenty_times_at_random_moments_it_ends_with_the_same_bits(tmp_path, whole, start, finish):
    out, draws, killed = tmp_path / "run", random.SystemRandom(), 0
    began = time.monotonic()
    finish(tmp_path / "timed", num_workers=1)
    seconds = time.monotonic() - began
    for number in range(200):
        process = start(out, num_workers=number % 2)
        time.sleep(draws.uniform(0, 1) * seconds)
        os.killpg(process.pid, signal.SIGKILL) if Path(f"/proc/{process.pid}").exists() else None
        if process.ended()[0] == 0:
            _assert_same(out, whole)
            shutil.rmtree(out)
        else:
            killed += 1
        if killed >= 20 and (out / "checkpoint.safetensors").exists():
            break
    finish(out, num_workers=1)
    _assert_same(out, whole)


@pytest.mark.slow
def test_two_processes_killed_in_turn_and_together_end_with_the_same_bits(tmp_path, whole_of_two, start):
    out = tmp_path / "run"
    for moment, rank in (("checkpoint 3", 0), ("before best 1", 0)):
        assert start(out, processes=2, moment=moment, rank=rank).ended()[0] != 0
    for victims in (slice(1, 2), slice(0, 2)):
        process = start(out, processes=2)
        _wait_for_steps(out, process)
        for child in _children(process.pid)[victims]:
            os.kill(child, signal.SIGKILL)
        assert process.ended()[0] != 0
    _two_finished(start, out)
    _assert_same(out, whole_of_two)


def _wait_for_steps(out, process):
    """Wait until a session has written to the log."""
    before = (out / "log.jsonl").stat().st_size if (out / "log.jsonl").exists() else 0
    for _ in range(600):
        time.sleep(0.05)
        if not Path(f"/proc/{process.pid}").exists() or (out / "log.jsonl").stat().st_size > before + 600:
            return
    raise AssertionError("the session didn't begin")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "workers"),
    [
        (signal.SIGTERM, 143, 0),
        (signal.SIGINT, -signal.SIGINT, 0),
        (signal.SIGTERM, 143, 2),
        (signal.SIGINT, -signal.SIGINT, 2),
    ],
)
def test_a_signal_ends_a_run_with_a_checkpoint_and_one_line(tmp_path, start, number, code, workers):
    out = tmp_path / "run"
    process = start(out, epochs=2000, num_workers=workers, checkpoint_every=0)
    _wait_for(out, lambda log: len(log.epochs) >= 1)
    # A cluster's signal reaches the loading processes, too.
    os.killpg(process.pid, number) if workers else os.kill(process.pid, number)
    ended, _, errors = process.ended()
    assert ended == code, errors
    lines = [line for line in errors.splitlines() if line.startswith("convscope: ")]
    assert len(lines) == 1
    step = int(lines[0].split("after step ")[1].split(" of")[0].replace(",", ""))
    assert f"go on from its checkpoint in {out} with resume=True" in lines[0]
    assert read_log(out / "log.jsonl").steps[-1].step == step
    assert not [file.name for file in out.iterdir() if file.name.startswith(".")]
    _check_goes_on(start, out, step)


def _wait_for(out, is_there):
    for _ in range(1200):
        time.sleep(0.05)
        if (out / "log.jsonl").exists() and is_there(read_log(out / "log.jsonl")):
            return
    raise AssertionError("the run didn't get that far")


def _check_goes_on(start, out, step):
    process = start(out, epochs=2000, checkpoint_every=0)
    _wait_for(out, lambda log: log.steps and log.steps[-1].step > step)
    os.killpg(process.pid, signal.SIGKILL)
    process.ended()
    assert read_log(out / "log.jsonl").start["from_step"] == step


@pytest.mark.slow
def test_loading_processes_stopped_while_a_run_measures_leave_a_checkpoint(tmp_path, whole, start, finish):
    out = tmp_path / "run"
    code, _, errors = start(out, moment="measuring", num_workers=2).ended()
    assert code == 143, errors
    assert f"stopped after step 6 of 18; go on from its checkpoint in {out}" in errors
    assert not read_log(out / "log.jsonl").epochs
    finish(out)
    assert read_log(out / "log.jsonl").start["from_step"] == 6
    _assert_same(out, whole)


@pytest.mark.slow
def test_sigterm_to_a_launcher_stops_both_processes_at_one_step(tmp_path, start):
    out = tmp_path / "run"
    process = start(out, processes=2, epochs=2000)
    _wait_for(out, lambda log: len(log.epochs) >= 1)
    os.kill(process.pid, signal.SIGTERM)
    _, _, errors = process.ended()
    assert errors.count("convscope: stopped after step") == 1
    assert not [file.name for file in out.iterdir() if file.name.startswith(".")]
