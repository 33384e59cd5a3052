"""How much memory may this process still take? What the machine has, and what its control group allows.

Limits: Linux; elsewhere physical memory that is free, where Python can tell. Swap doesn't count.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from convscope.core.units import KIB

# Which file says how much a group may take, and how much it takes: version 2, then version 1.
_GROUP_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


def available_memory(root: str | Path = "/") -> int | None:
    """Return the bytes that can be taken before the system swaps or a control group's limit ends the process.

    The smallest of ``MemAvailable`` and of what is left to this process's memory control group and to each
    group above it. Files in the page cache that a group could give up count as free.

    Args:
        root: where ``proc`` and ``sys`` lie; another place than ``/`` serves tests.

    Returns:
        Bytes; None where the system doesn't say.

    Source: the Linux kernel's documentation, ``filesystems/proc.rst``, ``admin-guide/cgroup-v2.rst`` and
    ``admin-guide/cgroup-v1/memory.rst``.
    """
    root = Path(root)
    found = [left for group in _groups(root) if (left := _left_to(group)) is not None]
    machine = _numbers(root / "proc/meminfo").get("MemAvailable:")
    if machine is not None:
        found.append(machine * KIB)
    if not found and root == Path("/"):
        found = _free_pages()
    return min(found, default=None)


def shared_memory_left(folder: str | Path = "/dev/shm") -> int | None:
    """Return the bytes that are free where Linux keeps shared memory; None where there is no such folder.

    Containers often have 64 MiB of it. A process that writes beyond is ended without a message.
    """
    try:
        status = os.statvfs(folder)
    except (OSError, AttributeError):
        return None
    return status.f_bavail * status.f_frsize


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process's memory control groups, and of those above them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        below = Path(path.lstrip("/"))
        yield from (top / each for each in (below, *below.parents) if (top / each).is_dir())


def _left_to(group: Path) -> int | None:
    for limit_file, usage_file in _GROUP_FILES:
        limit, usage = _number(group / limit_file), _number(group / usage_file)
        if limit is not None and usage is not None:
            statistics = _numbers(group / "memory.stat")
            # In version 1 the sums over the groups below have names of their own.
            idle_files = statistics.get("total_inactive_file", statistics.get("inactive_file", 0))
            return max(0, limit - max(0, usage - idle_files))
    return None


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # "max" is no limit
        return None


def _numbers(file: Path) -> dict[str, int]:
    """The first number of each line, by the line's first word."""
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def _free_pages() -> list[int]:
    try:
        return [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):
        return []
