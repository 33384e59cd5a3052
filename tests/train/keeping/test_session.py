"""Two sessions in one folder: the second is refused, whatever it asks for; a dead one holds nothing."""

import multiprocessing
import os
import signal

import pytest

import convscope as cs
from convscope.core.errors import ConvscopeError
from processes import FORKING
from train.toy import ToyData, toy_model

SETTINGS = {"epochs": 2, "batch_size": 8, "checkpoint_every": 2}


class _Waits:
    def __init__(self, pipe):
        self.pipe = pipe

    def after_step(self, model, step):
        if step == 3:
            self.pipe.send("there")
            self.pipe.recv()


def _trains(out, pipe):
    cs.train(toy_model(), ToyData(), out=out, callbacks=[_Waits(pipe)], **SETTINGS)


@pytest.fixture
def session(tmp_path):
    ours, theirs = multiprocessing.Pipe()
    process = FORKING.Process(target=_trains, args=(tmp_path / "run", theirs))
    process.start()
    assert ours.poll(60)
    assert ours.recv() == "there"
    yield process, ours
    process.kill()
    process.join()


def test_a_second_session_is_refused_and_changes_nothing(session, tmp_path):
    process, pipe = session
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(ConvscopeError, match="another session is training; expected one session at a time"):
        cs.train(toy_model(), ToyData(), out=tmp_path / "run", resume=True, **SETTINGS)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    pipe.send("go on")
    process.join(60)
    assert process.exitcode == 0
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.slow
def test_a_killed_session_holds_nothing(session, tmp_path):
    process, _ = session
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    run = cs.train(toy_model(), ToyData(), out=tmp_path / "run", resume=True, **SETTINGS)
    assert run.weights is not None
