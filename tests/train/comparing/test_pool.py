"""Runs in processes of their own: the same results, whatever happens to them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convscope.train import TrainConfig, compare
from convscope.train.comparing import Arm
from convscope.train.comparing.course import Course
from convscope.train.comparing.forecast import makespan, run_seconds
from convscope.train.comparing.machine import Layout, Place, default_threads, layout
from convscope.train.comparing.pool import measure
from convscope.train.comparing.running import Feed
from train.comparing.small import SETTINGS

CHOICES = {"norm": ["none", "batch"]}
LONG = 30  # epochs: time enough to be killed in
SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from convscope.train import compare
network, data, out, processes, epochs = sys.argv[1:]
settings = {"epochs": int(epochs), "batch_size": 12, "schedule": "constant"}
found = compare(network, data, {"norm": ["none", "batch"]}, seeds=2, settings=settings, out=out,
                processes=int(processes) if processes != "none" else None, threads=1)
print("COMPLETE", found.is_complete)
"""


def weights(out):
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("final.safetensors"))}


def started(references, out, processes, epochs, *before):
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(compare.__code__.co_filename).parents[3]),
    }
    return subprocess.Popen(
        [sys.executable, *before, "-c" if not before else str(out.parent / "script.py"),
         *([SCRIPT] if not before else []), *references, str(out), processes, str(epochs)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_processes_change_no_bit_and_a_process_that_dies_ends_no_other(references, tmp_path):
    words = {"settings": SETTINGS, "threads": 1, "seeds": 2}
    compare(*references, CHOICES, out=tmp_path / "here", processes=0, **words)
    found = compare(*references, CHOICES, out=tmp_path / "there", processes=2, **words)
    assert found.is_complete
    assert len(weights(tmp_path / "here")) == 4
    assert weights(tmp_path / "here") == weights(tmp_path / "there")
    network, data = references
    deadly, loud = network.replace(":build", ":deadly"), network.replace(":build", ":loud")
    mixed = compare("", data, {"network": [loud, deadly]}, out=tmp_path / "mixed", processes=1,
                    **{**words, "seeds": 1, "settings": {**SETTINGS, "epochs": 9}})  # fmt: skip
    assert [arm.runs[0].state for arm in mixed.arms] == ["finished", "failed"]
    assert "code 7" in mixed.arms[1].runs[0].failure


@pytest.fixture(scope="module")
def whole(references, tmp_path_factory):
    """The weights of a comparison that nobody interrupted."""
    out = tmp_path_factory.mktemp("whole")
    settings = {**SETTINGS, "epochs": LONG}
    compare(*references, CHOICES, seeds=2, settings=settings, out=out, processes=0, threads=1)
    return weights(out)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_ended_with_all_its_processes_and_started_again_it_ends_with_the_same_weights(
    references, tmp_path, whole, how
):
    killed = started(references, tmp_path / "killed", "2", LONG)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed").rglob("checkpoint.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.02)
    children = _children(killed.pid)
    killed.send_signal(how)
    killed.communicate(timeout=30)
    assert children
    deadline = time.monotonic() + 20
    while any(map(_is_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_is_alive, children)), "a process went on after its parent was killed"
    assert len(weights(tmp_path / "killed")) < 4
    again = started(references, tmp_path / "killed", "2", LONG)
    assert "COMPLETE True" in again.communicate(timeout=240)[0]
    assert weights(tmp_path / "killed") == whole


@pytest.mark.slow
def test_ranks_of_torchrun_share_the_runs_and_none_trains_together(references, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    ranked = started(references, tmp_path / "ranked", "none", 3, *launcher)
    said, problems = ranked.communicate(timeout=240)
    assert said.count("COMPLETE True") == 2, problems[-2000:]
    compare(*references, CHOICES, seeds=2, settings=SETTINGS, out=tmp_path / "alone", processes=0, threads=1)
    assert weights(tmp_path / "ranked") == weights(tmp_path / "alone")
    for log in (tmp_path / "ranked").rglob("log.jsonl"):
        assert json.loads(log.read_text().split("\n")[0])["processes"] == 1


def _children(pid):
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line) for line in listed.stdout.split()]


def _is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_process_has_its_threads_its_gpu_and_no_launchers_environment(monkeypatch):
    for name in (
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "MASTER_ADDR",
        "TORCHELASTIC_RUN_ID",
        "ACCELERATE_USE_CPU",
    ):
        monkeypatch.setenv(name, "1")
    made = Layout(processes=3, threads=2, gpus=("4", "6")).environment(2)
    assert (made["OMP_NUM_THREADS"], made["CUDA_VISIBLE_DEVICES"]) == ("2", "4")
    assert not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} & made.keys()
    assert not any(name.startswith(("TORCHELASTIC_", "ACCELERATE_")) for name in made)


def test_the_layout_follows_cores_gpus_and_ranks(monkeypatch):
    home = "convscope.train.comparing.machine."
    monkeypatch.setattr(home + "cores", lambda: 8)
    monkeypatch.setattr(home + "gpus", list)
    alone, second = Place(), Place(rank=1, size=4, local_rank=1)
    assert layout(None, 2, 20, alone) == Layout(4, 2)
    assert layout(None, 2, 3, alone) == Layout(3, 2)
    assert layout(0, 1, 20, alone) == Layout(0, 1)
    assert layout(None, 1, 20, second) == Layout(1, 1)
    assert (default_threads(20, alone), default_threads(2, alone)) == (1, 4)
    monkeypatch.setattr(home + "gpus", lambda: ["0", "1"])
    assert layout(None, 1, 20, alone) == Layout(2, 1, ("0", "1"))
    assert layout(None, 1, 20, second) == Layout(1, 1, ("1",))


def test_the_time_left_follows_the_work_that_is_done(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("convscope.train.comparing.course.time.monotonic", lambda: now[0])
    course = Course(total=5, done=1)
    assert course.standing().seconds_left is None
    course.share("a", 0.5)  # resumed half-way
    course.share("b", 0.0)
    now[0] = 10.0
    course.share("a", 0.9)
    course.share("b", 0.6)
    # one run's worth in ten seconds; left: 0.1 + 0.4 + two whole runs
    assert course.standing().seconds_left == pytest.approx(25.0)
    course.end("a", "finished")
    course.end("b", "failed")
    found = course.standing()
    assert (found.done, found.failed, found.running) == (3, 1, {})


def test_the_last_run_ends_when_each_goes_to_the_first_free_process():
    assert makespan([4.0, 1.0, 1.0, 1.0], 2) == 4.0
    assert makespan([2.0, 2.0, 2.0], 1) == 6.0


def test_the_first_probe_counts_the_start_of_its_process(monkeypatch):
    class Slow:
        def __init__(self, laid, slot):
            time.sleep(0.02)

        def do(self, task):
            time.sleep(0.01)
            numbers = {"num_train": 30, "num_validation": 10, "step_seconds": 0.1, "evaluation_seconds": 0.5}
            measured = {**numbers, "disk_bytes": 1, "memory_bytes": 1, "start_seconds": 2.0, "seconds": 0.01}
            return {"probe": {"arm": task[1].name, "batch_size": 10, "process_seconds": 4.0, **measured}}

        def stop(self, now=False):
            pass

        close = stop

    monkeypatch.setattr("convscope.train.comparing.pool.Worker", Slow)
    arms = [Arm("a", "zfnet", config=TrainConfig(epochs=3, batch_size=10)), Arm("b", "zfnet")]
    (_, first), (_, second) = measure(arms, Feed("digits"), Layout(1, 1))
    assert first.process_seconds >= 4.02
    assert second.process_seconds == 4.0
    assert run_seconds(arms[0], first) == pytest.approx(2 + 3 * (3 * 0.1 + 0.5))
