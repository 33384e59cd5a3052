"""Freed memory stays with the process while a run lasts, and only then; nothing computed depends on it."""

import ctypes
import dataclasses
import os
import platform
from pathlib import Path

import pytest
import torch
from torch import nn

from convscope.core.units import GIB, MIB
from convscope.train import train
from convscope.train.running.allocator import memory_kept
from convscope.train.telling.forecast import Forecast
from train.toy import ToyData, same_bits

FORECAST = Forecast("cpu", 32, 2 * GIB, 8 * GIB, "yes", "", None, 0, 10, 1, 0.0)

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library isn't glibc")


class _Mallinfo2(ctypes.Structure):
    """What ``mallinfo2`` returns, by the names of its manual page."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
        "keepcost",
    )]  # fmt: skip


def _from_kernel():
    """Whether a tensor of 48 MiB is a block of the kernel's own, which goes back when it is freed."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Mallinfo2
    before = mallinfo2().hblks
    tensor = torch.ones(48 * MIB, dtype=torch.uint8)
    return tensor.numel() > 0 and mallinfo2().hblks > before


def _resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@glibc
def test_large_blocks_stay_in_the_heap_while_it_lasts_and_go_afterwards():
    assert _from_kernel()
    outside = _resident()
    with memory_kept(FORECAST):
        assert not _from_kernel()
        assert _resident() > outside + 24 * MIB  # freed, and still there
    assert _from_kernel()
    assert _resident() < outside + 24 * MIB


@glibc
def test_an_exception_ends_it_too():
    with pytest.raises(KeyboardInterrupt), memory_kept(FORECAST):
        raise KeyboardInterrupt
    assert _from_kernel()


@glibc
@pytest.mark.parametrize(
    "changed",
    [{"device": "cuda"}, {"fits": "tight"}, {"fits": "unknown"}, {"available_bytes": 3 * GIB - 1}],
)
def test_it_is_left_alone_where_memory_is_short_or_elsewhere(changed):
    with memory_kept(dataclasses.replace(FORECAST, **changed)):
        assert _from_kernel()


@glibc
@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_TRIM_THRESHOLD_", "131072"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")]
)
def test_the_environments_settings_stand(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with memory_kept(FORECAST):
        assert _from_kernel()


def test_runs_without_a_forecast_of_their_small_peak_keep_it(monkeypatch):
    called = []
    library = type(
        "Library", (), {"mallopt": lambda _, *words: called.append(words), "malloc_trim": called.append}
    )
    monkeypatch.setattr("convscope.train.running.allocator._glibc", library)
    with memory_kept(dataclasses.replace(FORECAST, peak_bytes=None)):
        assert called == [(-4, 0), (-1, -1)]


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
