"""Work done by several processes of one gloo group, for tests that compare them with one process."""

import datetime
import multiprocessing
import warnings
from pathlib import Path

import torch
import torch.distributed as dist


def in_processes(count, work, folder, *arguments, seconds=100):
    """Return what ``work(rank, folder, *arguments)`` returns in each process.

    Args:
        count: of processes.
        work: a function of a module's top level.
        folder: where they meet; empty.
        *arguments: for ``work``.
        seconds: after which processes that still run are ended.
    """
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_in_group, args=(rank, count, work, str(folder), arguments), daemon=True)
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
