"""Freed memory stays with the process while a run lasts, and only then; nothing computed depends on it."""

import dataclasses
import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from convscope.core.units import GIB
from convscope.train import train
from convscope.train.running.allocator import memory_kept
from convscope.train.telling.forecast import Forecast
from train.toy import ToyData, same_bits

FORECAST = Forecast("cpu", 32, 2 * GIB, 8 * GIB, "yes", "", None, 0, 10, 1, 0.0)

# In a process of its own: in an old one the heap may have a hole of 48 MiB.
IN_A_NEW_PROCESS = """
import ctypes, os, torch
from convscope.train.running.allocator import memory_kept
from convscope.train.telling.forecast import Forecast

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
with memory_kept(Forecast("cpu", 32, 2**30, 8 * 2**30, "yes", "", None, 0, 10, 1, 0.0)):
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
    monkeypatch.setattr("convscope.train.running.allocator._glibc", lambda: library)
    return library


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library isn't glibc")
def test_large_blocks_stay_in_the_heap_while_it_lasts_and_go_afterwards():
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[True, False, True] True True"


def test_an_exception_ends_it_too(library):
    with pytest.raises(KeyboardInterrupt), memory_kept(FORECAST):
        assert library.told == [(-4, 0), (-1, -1)]
        raise KeyboardInterrupt
    assert library.told[2:] == [(-4, 65536), (-3, 32 * 2**20), (-1, 64 * 2**20), "trim"]


@pytest.mark.parametrize(
    "changed",
    [{"device": "cuda"}, {"fits": "tight"}, {"fits": "unknown"}, {"available_bytes": 3 * GIB - 1}],
)
def test_it_is_left_alone_where_memory_is_short_or_elsewhere(library, changed):
    with memory_kept(dataclasses.replace(FORECAST, **changed)):
        pass
    assert library.told == []


@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_TRIM_THRESHOLD_", "131072"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")]
)
def test_the_environments_settings_stand(library, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with memory_kept(FORECAST):
        pass
    assert library.told == []


def test_a_peak_too_small_to_be_forecast_is_no_reason_against_it(library):
    with memory_kept(dataclasses.replace(FORECAST, peak_bytes=None)):
        assert library.told


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr("convscope.train.running.allocator._glibc", lambda: None)
    with memory_kept(FORECAST):
        pass


class _LargeImages:
    """Images whose first layer's outputs are blocks of 62 MiB."""

    def __init__(self, num_images):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(num_images, 2, 256, 256, generator=generator)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], index % 3


def test_the_weights_of_a_run_are_the_same_bits_with_and_without(tmp_path, monkeypatch):
    models = []
    for variable in ("MALLOC_TRIM_THRESHOLD_", "ANOTHER"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "1")
            torch.manual_seed(0)
            models.append(nn.Sequential(
                nn.Conv2d(2, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                nn.Linear(64, 3),
            ))  # fmt: skip
            data = ToyData(_LargeImages(32), _LargeImages(4))
            train(models[-1], data, out=tmp_path / variable, epochs=2, batch_size=16, augment="none")
    assert same_bits(*models)
