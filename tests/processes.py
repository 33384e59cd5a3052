"""Processes of one group, for tests that compare them with one process; PyTorch is imported once for all.

They are forked from multiprocessing's server, which has imported what they need: the first group of a test
run starts the server, in seconds, and each process after that begins in milliseconds.
"""

import datetime
import multiprocessing
import os
import runpy
import signal
import sys
import uuid
import warnings
from pathlib import Path

import torch
import torch.distributed as dist

FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(
    ["torch._dynamo", "torch.distributed.launcher.api", "accelerate", "convscope.train", "convscope.checkup"]
)


def in_processes(count, work, folder, *arguments, seconds=100):
    """Return what ``work(rank, folder, *arguments)`` returns in each process.

    Args:
        count: of processes.
        work: a function of a module's top level.
        folder: where they meet; empty.
        *arguments: for ``work``.
        seconds: after which processes that still run are ended.
    """
    processes = [
        FORKING.Process(target=_in_group, args=(rank, count, work, str(folder), arguments), daemon=True)
        for rank in range(count)
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(seconds)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return [torch.load(Path(folder) / f"found-{rank}.pt", weights_only=False) for rank in range(count)]


def _in_group(rank, count, work, folder, arguments):
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count,
        timeout=datetime.timedelta(seconds=60),
    )  # fmt: skip
    torch.save(work(rank, Path(folder), *arguments), f"{folder}/found-{rank}.pt")
    dist.destroy_process_group()


def under_torchrun(count, script, *words, seconds=200):
    """Run a script in processes that torchrun's own launcher starts; what they said is told if they fail.

    Args:
        count: of processes.
        script: a file; what it says goes into one beside it.
        *words: behind it on the command line.
        seconds: after which it is ended.
    """
    said = script.with_suffix(f".said-by-{count}")
    process = FORKING.Process(target=_launched, args=(count, str(script), words, str(said)))
    process.start()
    process.join(seconds)
    process.terminate()
    process.join(60)
    assert process.exitcode == 0, said.read_text()


def _launched(count, script, words, said):
    for stream in (1, 2):
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    launch(count, _as_main, script, words)


def _as_main(script, words):
    sys.argv[:] = [script, *map(str, words)]
    sys.path.insert(0, str(Path(script).parent))
    runpy.run_path(script, run_name="__main__")


def launch(count, work, *arguments):
    """Let the launcher behind ``torchrun --standalone`` run a function in so many processes, to their end.

    They have the environment that torchrun gives, and it watches and ends them; only are they forked here,
    where it starts a new interpreter for each.

    Args:
        count: of processes.
        work: what each runs.
        *arguments: for ``work``.
    """
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        1, 1, count, run_id=str(uuid.uuid4()), rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        start_method="fork", max_restarts=0,
    )  # fmt: skip
    elastic_launch(config, _ranked)(work, *arguments)


def _ranked(work, *arguments):
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):  # the launcher's own handlers were forked
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    work(*arguments)
