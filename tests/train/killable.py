"""A script that trains the toy with everything that has state, for tests that kill it.

``python killable.py`` reads a JSON a line, and forks a process for each: PyTorch is imported once. It answers
with the process's number at once, and with its exit code when it is over. In the JSON are ``out``,
``moment`` (None, or where it kills itself: ``"step N"``, ``"KIND N"`` in the middle of the N-th writing of
``checkpoint``, ``best``, ``average``, ``final``, ``log`` or ``truncated``, or ``"before checkpoint N"``, or
``"measuring"``: SIGTERM reaches all its processes while a loading one reads the last image to measure on),
``settings``, and ``processes``: with more than one, the forked one is torchrun's launcher, which forks those
that train together. A session resumes if there is something to resume.
"""

import builtins
import json
import os
import signal
import sys
import time
from collections import Counter
from contextlib import contextmanager

import torch
import torch._dynamo  # which training by several processes would import, in each of them

import convscope as cs
from convscope.train import NoProgress
from convscope.train.keeping import checkpoint, log
from convscope.train.measuring import confusion
from processes import launch
from train.toy import RandomImages, ToyData, toy_model

signal.signal(signal.SIGINT, signal.default_int_handler)  # shells' background jobs ignore it
_written: Counter[str] = Counter()


def _kill(moment: str) -> None:
    builtins.print(f"killed at {moment}", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


class _KillAfter(NoProgress):
    def __init__(self, moment: str | None) -> None:
        self.moment = moment

    def step(self, pulse) -> None:
        if self.moment == f"step {pulse.step}":
            _kill(self.moment)
        time.sleep(0.01)  # random moments shall fall into steps, too


class _StoppedMeasuring(RandomImages):
    def __getitem__(self, index: int):
        if index == len(self) - 1:
            os.killpg(0, signal.SIGTERM)
        return super().__getitem__(index)


def _plan(moment: str) -> None:
    """Let the process die in the middle of a write: half of a file's bytes are there."""
    whole_file = checkpoint.whole_file

    @contextmanager
    def dying(path):
        kind = path.name.partition(".")[0] if path.name != "log.jsonl" else "truncated"
        _written[kind] += 1
        at = f"{kind} {_written[kind]}"
        with whole_file(path) as temporary:
            if moment == f"before {at}":
                _kill(moment)
            yield temporary
            if moment == at:
                os.truncate(temporary, temporary.stat().st_size // 2)
                _kill(moment)

    for module in (checkpoint, log, confusion, sys.modules["convscope.networks.saved"]):
        module.whole_file = dying

    write = log.LogWriter.write

    def half(self, kind, entries) -> None:
        _written["log"] += 1
        if moment == f"log {_written['log']}":
            lines = "".join(json.dumps({"kind": kind, **log.plain(entry)}) + "\n" for entry in entries)
            self._file.write(lines.encode()[: len(lines) * 2 // 3])
            _kill(moment)
        write(self, kind, entries)

    log.LogWriter.write = half


def _serve() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.setsid()
            given = json.loads(line)
            for stream, name in ((1, "said"), (2, "errors")):
                os.dup2(os.open(given[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            _main(given) if given["processes"] == 1 else launch(given["processes"], _main, given)
            return
        builtins.print(child, flush=True)
        builtins.print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _main(given) -> None:
    torch.set_num_threads(1)
    if given.get("moment") and int(os.environ.get("RANK", "0")) == given.get("rank", 0):
        _plan(given["moment"])
    torch.manual_seed(int.from_bytes(os.urandom(4), "big"))
    model = toy_model()
    if given.get("scrambled"):  # a resumed run must take nothing from the weights that it is given
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.uniform_()
    data = ToyData(
        RandomImages(42), (_StoppedMeasuring if given.get("moment") == "measuring" else RandomImages)(17)
    )
    run = cs.train(
        model,
        data,
        out=given["out"],
        resume=True,
        progress=_KillAfter(given.get("moment")),
        **given["settings"],
    )
    print("finished", run.steps[-1].step, flush=True)


if __name__ == "__main__":
    _serve()
