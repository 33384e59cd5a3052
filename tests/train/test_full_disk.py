"""A disk that is full, a folder that is gone: one line, the last good checkpoint, and a run that goes on."""

import errno
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

import convscope as cs
from convscope.core.errors import ConvscopeError
from convscope.train.keeping import checkpoint, log
from convscope.train.measuring import confusion
from train.toy import ToyData, same_bits, toy_model

SETTINGS = {
    "epochs": 3, "batch_size": 8, "learning_rate": 0.05, "checkpoint_every": 2, "log_every": 3,
    "augment": "shift", "ema_decay": 0.9, "keep_epochs": [2],
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    model = toy_model()
    cs.train(model, ToyData(), out=out, **SETTINGS)
    return model, out


def _check_goes_on(out, whole):
    model = toy_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    cs.train(model, ToyData(), out=out, resume=True, **SETTINGS)
    assert same_bits(model, whole[0])
    assert {file.name for file in out.iterdir()} == {file.name for file in whole[1].iterdir()}
    for name in ("best", "final", "average", "epoch-2"):
        ours, theirs = (load_file(folder / f"{name}.safetensors") for folder in (out, whole[1]))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def _fails(out, **more):
    with pytest.raises(ConvscopeError) as caught:
        cs.train(toy_model(), ToyData(), out=out, **SETTINGS, **more)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    "moment", ["checkpoint 1", "checkpoint 4", "best 1", "average 2", "confusion 1", "epoch-2 1", "final 1"]
)
def test_no_room_for_a_file_keeps_the_last_checkpoint_and_resuming_goes_on(
    tmp_path, monkeypatch, whole, moment
):
    out, counts = tmp_path / "run", {}
    real = checkpoint.whole_file

    @contextmanager
    def full(path):
        kind = path.name.partition(".")[0]
        counts[kind] = counts.get(kind, 0) + 1
        with real(path) as temporary:
            yield temporary
            if moment == f"{kind} {counts[kind]}":
                raise OSError(errno.ENOSPC, "No space left on device", str(temporary))

    with monkeypatch.context() as patch:
        for module in (checkpoint, log, confusion, sys.modules["convscope.networks.saved"]):
            patch.setattr(module, "whole_file", full)
        text = _fails(out)
    assert "No space left on device" in text
    assert moment.partition(" ")[0] in text
    assert not [file for file in out.iterdir() if file.name.startswith(".")]
    if moment == "checkpoint 1":
        assert list(out.iterdir()) == []
        return
    load_file(out / "checkpoint.safetensors")
    _check_goes_on(out, whole)


@pytest.mark.parametrize("number", [1, 2, 5, 9, 11])
def test_no_room_for_a_line_of_the_log_stops_the_run_and_resuming_goes_on(
    tmp_path, monkeypatch, whole, number
):
    real, written = log.LogWriter.write, []

    def write(self, kind, entries):
        written.append(kind)
        if len(written) == number:
            self._file.write(b'{"kind": "ste')  # the half of a line that there was room for
            self._file.close()
            self._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115, PTH123
        real(self, kind, entries)

    with monkeypatch.context() as patch:
        patch.setattr(log.LogWriter, "write", write)
        text = _fails(tmp_path / "run")
    assert "log.jsonl' can't be written (No space left on device)" in text
    assert "make room, then resume" in text
    _check_goes_on(tmp_path / "run", whole)


class _At:
    """Does something after a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def after_step(self, model, step):
        if step == self.step:
            self.action()


@pytest.mark.parametrize("changes", [{}, {"checkpoint_every": 0, "log_every": 1000}])
def test_a_folder_that_is_removed_during_the_run_ends_it(tmp_path, changes):
    out = tmp_path / "run"
    with pytest.raises(ConvscopeError, match=r"can't be written \(somebody removed it .*start again"):
        cs.train(
            toy_model(), ToyData(), out=out, callbacks=[_At(4, lambda: shutil.rmtree(out))],
            **{**SETTINGS, **changes},
        )  # fmt: skip
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 5, 6, 11, 17, 18])
def test_a_disk_that_is_really_full(tmp_path, whole, step):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs rights that this user hasn't")
    try:
        ballast = disk / "ballast"

        def fill():
            with pytest.raises(OSError, match="No space"), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 512)

        text = _fails(disk / "run", callbacks=[_At(step, fill)])
        assert "No space left on device" in text
        ballast.unlink()
        load_file(disk / "run" / "checkpoint.safetensors")
        _check_goes_on(disk / "run", whole)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert "Read-only file system" in _fails(disk / "other")
        assert "may not write" in _fails(disk / "run", resume=True)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
