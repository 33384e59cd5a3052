import os
import signal
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import convscope as cs
from convscope.core.errors import ConvscopeError
from convscope.train import read_log
from convscope.train.telling.trackers import check_trackers
from train.toy import StopAt, ToyData, toy_model

SETTINGS = {"epochs": 3, "batch_size": 8, "log_every": 2, "checkpoint_every": 4, "trackers": ("tensorboard",)}


def _scalars(out):
    """Name, step and value of all that TensorBoard shows."""
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def _float32(values):
    return [(step, pytest.approx(value, rel=1e-6)) for step, value in values]


def _check_equals_log(out, averaged=False):
    log, found = read_log(out / "log.jsonl"), _scalars(out)
    for name in ("loss", "accuracy", "learning_rate"):
        assert found[f"train/{name}"] == _float32([(r.step, getattr(r, name)) for r in log.steps])
    for name in ("loss", "accuracy"):
        assert found[f"validation/{name}"] == _float32(
            [(r.step, getattr(r, f"validation_{name}")) for r in log.epochs]
        )
    assert ("average/loss" in found) == averaged
    return log


def test_tensorboard_shows_what_the_log_says(tmp_path):
    cs.train(toy_model(scores=7), ToyData(), out=tmp_path / "run", ema_decay=0.9, **SETTINGS)
    log = _check_equals_log(tmp_path / "run", averaged=True)
    found = _scalars(tmp_path / "run")
    assert len(log.steps) == 18
    assert found["validation/top5"] == _float32([(r.step, r.validation_top5) for r in log.epochs])
    assert found["average/accuracy"] == _float32([(r.step, r.average_accuracy) for r in log.epochs])


def test_a_resumed_run_shows_no_step_twice(tmp_path):
    out = tmp_path / "run"
    for step in (3, 11, 16):
        with pytest.raises(KeyboardInterrupt):
            cs.train(toy_model(), ToyData(), out=out, resume=True, progress=StopAt(step), **SETTINGS)
    cs.train(toy_model(), ToyData(), out=out, resume=True, **SETTINGS)
    log = _check_equals_log(out)
    assert [record.step for record in log.steps] == list(range(1, 19))


def test_signals_and_trackers_leave_nothing_behind(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    plain = cs.train(toy_model(), ToyData(), out=tmp_path / "a", **{**SETTINGS, "trackers": ()})
    told = cs.train(toy_model(), ToyData(), out=tmp_path / "b", **SETTINGS)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert told.steps == plain.steps
    assert not (tmp_path / "a" / "tensorboard").exists()


def test_unknown_trackers_and_lacking_packages_are_one_line(tmp_path):
    with pytest.raises(ConvscopeError, match=r"unknown tracker 'tensorbord'; expected one of .*tensorboard"):
        check_trackers(("tensorbord",))
    with pytest.raises(
        ConvscopeError, match=r"tracker 'comet_ml' without its package.* pip install comet-ml"
    ):
        cs.train(toy_model(), ToyData(), out=tmp_path / "run", **{**SETTINGS, "trackers": ("comet_ml",)})
    assert not (tmp_path / "run").exists()


def test_without_tensorboard_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(ConvscopeError, match=r"run: pip install 'convscope\[log\]'"):
        check_trackers(("tensorboard",))


def test_a_full_disk_ends_a_tracked_run_in_one_line(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("accelerate.tracking.TensorBoardTracker.log", full)
    with pytest.raises(
        ConvscopeError, match=r"trackers can't be told of the run \(No space left on device\)"
    ):
        cs.train(toy_model(), ToyData(), out=tmp_path / "run", **SETTINGS)


@pytest.mark.slow
def test_without_trackers_no_tracking_package_is_imported(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from toy import *; import convscope as cs\n"
        "cs.train(toy_model(), ToyData(), out=sys.argv[2], epochs=1)\n"
        "sys.exit('torch.utils.tensorboard' in sys.modules)"
    )
    toys = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120
    subprocess.run([sys.executable, "-c", code, toys, str(tmp_path / "run")], check=True, timeout=120)
