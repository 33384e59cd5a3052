"""Planted faults between processes: each case runs in two gloo processes of its own.

They aren't :class:`~bench.checkup_suite.planted.Planted` cases, since their subjects live in other processes:
:func:`run` plays healthy, planted and mended in a pair of processes and returns what each check-up found.
"""

import datetime
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

import convscope as cs
from bench.checkup_suite.networks import grown, images

NUM_PROCESSES = 2

Found = tuple[tuple[str, str, str, str], ...]
"""Findings as (fault, severity, address, remedy)."""


@dataclass(frozen=True)
class PlantedInProcesses:
    """One fault in one network, in every one of two processes.

    Attributes:
        number, fault, network, address, remedy: as of :class:`~bench.checkup_suite.planted.Planted`.
        healthy, plant, mend: return what a process with this rank checks, model and data.
    """

    number: int
    fault: str
    network: str
    healthy: Callable[[str, int], tuple[nn.Module, list[Tensor]]]
    plant: Callable[[str, int], tuple[nn.Module, list[Tensor]]]
    address: str
    remedy: str
    mend: Callable[[str, int], tuple[nn.Module, list[Tensor]]]

    def __str__(self) -> str:
        return f"{self.number}-{self.fault}-{self.network}"


def run(folder: Path, seconds: int = 200, context: Any = None) -> list[dict[tuple[str, str], Found]]:
    """Return what each process has found, by case and state (``"healthy"``, ``"planted"``, ``"mended"``).

    Args:
        folder: empty; the processes meet there.
        seconds: after which they are ended.
        context: multiprocessing's, which starts them; None for fresh interpreters.
    """
    context = context or multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_work, args=(rank, str(folder)), daemon=True) for rank in range(NUM_PROCESSES)
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
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(NUM_PROCESSES)]


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=NUM_PROCESSES,
        timeout=datetime.timedelta(seconds=60),
    )  # fmt: skip
    found: dict[tuple[str, str], Any] = {}
    for case in CASES:
        for state, make in (("healthy", case.healthy), ("planted", case.plant), ("mended", case.mend)):
            distributed.barrier()
            model, data = make(case.network, rank)
            findings = cs.checkup(model, data).findings
            found[str(case), state] = tuple((f.fault, f.severity, f.address, f.remedy) for f in findings)
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def _share(rank: int, batch_size: int) -> list[Tensor]:
    return list(images(3 * batch_size, seed=10 + rank).split(batch_size))


# 12: the features behind global pooling have one value an image.


def _pooled(name: str, sync: bool = False) -> nn.Module:
    """An architecture whose last map is pooled and normalised again, by values of few images."""
    net = grown(name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(net, nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 4))
    if sync:
        cs.norm.convert(model, "sync")
    cs.norm.recalibrate(model, _share(0, 32) + _share(1, 32), method="sequential")
    return model.train()


def _large_batches(name: str, rank: int) -> tuple[nn.Module, list[Tensor]]:
    return _pooled(name), _share(rank, 32)


def _small_batches(name: str, rank: int) -> tuple[nn.Module, list[Tensor]]:
    return _pooled(name), _share(rank, 12)


def _small_synchronised(name: str, rank: int) -> tuple[nn.Module, list[Tensor]]:
    return _pooled(name, sync=True), _share(rank, 12)


# 13: each process has moved its own running statistics.


def _distributed(name: str, rank: int, batches: int, **settings: bool) -> tuple[nn.Module, list[Tensor]]:
    model = DistributedDataParallel(grown(name).train(), **settings)
    with torch.no_grad():
        for seed in range(batches):
            model(images(32, seed=1000 * rank + seed))
    return model, _share(rank, 32)


def _alike(name: str, rank: int) -> tuple[nn.Module, list[Tensor]]:
    return _distributed(name, rank, 3)


def _apart(name: str, rank: int) -> tuple[nn.Module, list[Tensor]]:
    return _distributed(name, rank, 3, forward_sync_buffers=False)


def _pooled_again(name: str, rank: int) -> tuple[nn.Module, list[Tensor]]:
    model, data = _apart(name, rank)
    cs.norm.recalibrate(model, data, method="sequential")
    return model, data


CASES: tuple[PlantedInProcesses, ...] = tuple(
    case
    for name, first in {"residual": "bn", "plain": "1"}.items()
    for case in (
        PlantedInProcesses(
            12, "unsynchronised-statistics", name, _large_batches, _small_batches, "2#1", "'sync'",
            _small_synchronised,
        ),
        PlantedInProcesses(
            13, "processes-disagree", name, _alike, _apart, first, "cs.norm.recalibrate(model, loader)",
            _pooled_again,
        ),
    )
)  # fmt: skip
