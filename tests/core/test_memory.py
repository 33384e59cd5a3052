"""Available memory: the smallest of what the machine has and of what control groups leave."""

import os

import pytest

from convscope.core.memory import available_memory, shared_memory_left


def write(root, files):
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def test_without_groups_it_is_what_the_machine_has(tmp_path):
    write(tmp_path, {"proc/meminfo": "MemTotal: 900 kB\nMemAvailable:     100 kB\n"})
    assert available_memory(tmp_path) == 100 * 1024


def test_version_2_counts_each_group_above_and_gives_back_idle_files(tmp_path):
    write(
        tmp_path,
        {
            "proc/meminfo": "MemAvailable: 1000 kB\n",
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/memory.max": "50000\n",
            "sys/fs/cgroup/a/memory.current": "30000\n",
            "sys/fs/cgroup/a/memory.stat": "anon 7\ninactive_file 5000\n",
            "sys/fs/cgroup/a/b/memory.max": "max\n",
            "sys/fs/cgroup/a/b/memory.current": "10\n",
        },
    )
    assert available_memory(tmp_path) == 50000 - (30000 - 5000)
    write(tmp_path, {"sys/fs/cgroup/a/b/memory.max": "1010\n"})
    assert available_memory(tmp_path) == 1000
    write(tmp_path, {"sys/fs/cgroup/a/b/memory.max": "3\n"})
    assert available_memory(tmp_path) == 0


def test_version_1_is_read_from_its_own_folder(tmp_path):
    group = "sys/fs/cgroup/memory/box"
    write(
        tmp_path,
        {
            "proc/meminfo": "MemAvailable: 1000 kB\n",
            "proc/self/cgroup": "4:cpu:/box\n3:memory:/box\n",
            f"{group}/memory.limit_in_bytes": "7000\n",
            f"{group}/memory.usage_in_bytes": "6000\n",
            f"{group}/memory.stat": "inactive_file 1\ntotal_inactive_file 500\n",
        },
    )
    assert available_memory(tmp_path) == 1500


def test_a_machine_that_says_nothing_gives_none(tmp_path):
    assert available_memory(tmp_path) is None
    assert shared_memory_left(tmp_path / "absent") is None


@pytest.mark.skipif(not os.path.exists("/proc/meminfo"), reason="Linux")  # noqa: PTH110
def test_here_it_is_at_most_what_the_machine_has():
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < available_memory() <= total
