"""Freed memory stays with the process while a block lasts, and only then; nothing computed depends on it."""

import platform
import subprocess
import sys

import pytest

from convscope.core.allocator import memory_kept
from convscope.core.units import GIB

ROOM = 2 * GIB, 8 * GIB

# In a process of its own: in an old one the heap may have a hole of 48 MiB.
IN_A_NEW_PROCESS = """
import ctypes, os, torch
from convscope.core.allocator import memory_kept

class Mallinfo2(ctypes.Structure):  # by the manual page
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
        "keepcost")]

mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Mallinfo2

def from_kernel():
    before = mallinfo2().hblks
    tensor = torch.ones(48 * 2**20, dtype=torch.uint8)
    return tensor.numel() > 0 and mallinfo2().hblks > before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

seen, outside = [from_kernel()], resident()
with memory_kept(2**30, 8 * 2**30):
    seen.append(from_kernel())
    kept = resident() - outside
seen.append(from_kernel())
print(seen, kept > 24 * 2**20, resident() - outside < 24 * 2**20)
"""


class _Library:
    """Remembers what it is told."""

    def __init__(self):
        self.told = []

    def mallopt(self, *words):
        self.told.append(words)

    def malloc_trim(self, _):
        self.told.append("trim")


@pytest.fixture
def library(monkeypatch):
    library = _Library()
    monkeypatch.setattr("convscope.core.allocator._glibc", lambda: library)
    return library


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library isn't glibc")
def test_large_blocks_stay_in_the_heap_while_it_lasts_and_go_afterwards():
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[True, False, True] True True"


def test_an_exception_ends_it_too(library):
    with pytest.raises(KeyboardInterrupt), memory_kept(*ROOM):
        assert library.told == [(-4, 0), (-1, -1)]
        raise KeyboardInterrupt
    assert library.told[2:] == [(-4, 65536), (-3, 32 * 2**20), (-1, 64 * 2**20), "trim"]


def test_it_is_left_alone_where_memory_is_short(library):
    with memory_kept(2 * GIB, 3 * GIB - 1):
        pass
    assert library.told == []


def test_of_blocks_within_one_another_the_last_to_end_undoes_it(library):
    with memory_kept(*ROOM):
        with memory_kept(*ROOM), memory_kept(8 * GIB, GIB):
            pass
        assert library.told == [(-4, 0), (-1, -1)]
    assert library.told[-1] == "trim"
    with memory_kept(*ROOM):
        assert library.told[-2:] == [(-4, 0), (-1, -1)]


@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_TRIM_THRESHOLD_", "131072"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")]
)
def test_the_environments_settings_stand(library, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with memory_kept(*ROOM):
        pass
    assert library.told == []


@pytest.mark.parametrize("room", [(None, 8 * GIB), (2 * GIB, None)])
def test_what_is_not_known_is_no_reason_against_it(library, room):
    with memory_kept(*room):
        assert library.told


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr("convscope.core.allocator._glibc", lambda: None)
    with memory_kept(*ROOM):
        pass
