"""What the machine offers a comparison: cores, GPUs, memory, disk, and the ranks of a launcher."""

import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from convscope.core.errors import ConvscopeError

_OF_A_LAUNCHER = ("TORCHELASTIC_", "ACCELERATE_", "FSDP_", "DEEPSPEED_", "GROUP_", "ROLE_")
_OF_A_RANK = frozenset(
    {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK"}
)


@dataclass(frozen=True)
class Place:
    """Which of a launcher's processes this one is.

    Attributes:
        rank: from 0.
        size: processes in all; 1 without a launcher.
        local_rank: on this machine, from 0.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0


def place() -> Place:
    """Return which of ``torchrun``'s or ``accelerate launch``'s processes this one is."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size <= 1:
        return Place()
    return Place(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))


def cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def gpus() -> list[str]:
    """Return the GPUs that CUDA shows, as ``CUDA_VISIBLE_DEVICES`` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    named = [name for name in visible.split(",") if name] if visible else []
    return named[:count] if named else [str(number) for number in range(count)]


@dataclass(frozen=True)
class Layout:
    """How runs are laid out on a machine.

    Attributes:
        processes: side by side; 0: in this process, one after the other.
        threads: of each run.
        gpus: names; process ``i`` has the ``i``-th, round and round. Empty: runs stay on the CPU.
    """

    processes: int
    threads: int
    gpus: tuple[str, ...] = ()

    def environment(self, slot: int) -> Mapping[str, str]:
        """Return the environment of a process: no launcher's, its threads, its GPU, this convscope."""
        clean = {
            name: value
            for name, value in os.environ.items()
            if name not in _OF_A_RANK and not name.startswith(_OF_A_LAUNCHER)
        }
        home = str(Path(__file__).parents[3])
        paths = [home, *clean.get("PYTHONPATH", "").split(os.pathsep)]
        clean["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        clean["OMP_NUM_THREADS"] = clean["MKL_NUM_THREADS"] = str(self.threads)
        if self.gpus:
            clean["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        return clean


def layout(processes: int | None, threads: int, num_runs: int, at: Place) -> Layout:
    """Return how runs are laid out.

    Args:
        processes: what was asked for; None: one for each GPU, or as many as the cores have room for; one
            for each rank of a launcher.
        threads: of each run.
        num_runs: of the table.
        at: which of a launcher's processes this one is.

    Raises:
        ConvscopeError: the number of processes isn't possible.
    """
    if processes is not None and (isinstance(processes, bool) or processes < 0):
        raise ConvscopeError(f"processes={processes!r}", "a whole number from 0", "0 runs in this process")
    shown = gpus()
    if at.size > 1:
        own = (shown[at.local_rank % len(shown)],) if shown else ()
        return Layout(processes or 1, threads, own)
    room = len(shown) or max(1, cores() // threads)
    return Layout(min(room if processes is None else processes, num_runs), threads, tuple(shown))


def default_threads(num_runs: int, at: Place) -> int:
    """Return the threads of each run: what there are cores for if all runs ran at once, at least one.

    It doesn't depend on the number of processes, and so nor do results: sums over threads differ in their
    last bits with how many there are.
    """
    return max(1, cores() // max(num_runs, at.size))


def available_memory() -> int | None:
    """Return the memory that new processes may take, in bytes; None where the system doesn't say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def free_disk(folder: Path) -> int:
    """Return the room on the disk of a folder that may not exist yet, in bytes."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def machine_name() -> str:
    """Return processor, cores, GPUs and system in a few words."""
    shown = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    parts = [_processor(), f"{cores()} cores", *shown, platform.system()]
    return ", ".join(part for part in parts if part)


def _processor() -> str:
    if sys.platform == "linux":
        try:
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        return next(named, platform.machine())
    return platform.processor() or platform.machine()
