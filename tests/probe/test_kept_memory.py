"""Runs over several batches keep memory where a CPU has room, and compute the same bits."""

from unittest.mock import Mock

import pytest
import torch
from torch import nn

import convscope as cs
from convscope.core.allocator import _begin
from convscope.core.units import MIB
from convscope.probe.kept_memory import memory_kept_for, peak_bytes
from convscope.tape import record


@pytest.fixture
def library(monkeypatch):
    library = Mock()
    monkeypatch.setattr("convscope.core.allocator._glibc", lambda: library)
    return library


def chain():
    return nn.Sequential(nn.Linear(6, 6, bias=False), nn.ReLU(), nn.Linear(6, 2, bias=False), nn.Tanh())


def test_the_peak_is_that_of_a_count_by_hand():
    # Weights 36 + 12, and of 5 inputs at the ReLU: the input itself, what the ReLU reads and what it makes.
    assert peak_bytes(record(chain(), (5, 6), device="cpu")) == 4 * (48 + 3 * 30)


@pytest.mark.parametrize(("megabytes", "is_kept"), [(3, True), (1, False)])
def test_there_must_be_room_for_as_many_images_as_are_run_at_once(monkeypatch, library, megabytes, is_kept):
    monkeypatch.setattr("convscope.probe.kept_memory.available_memory", lambda: megabytes * MIB)
    tape = record(chain(), (5, 6), device="cpu")
    with memory_kept_for(tape, batches=4000):  # 1.37 MiB, half as much again with holes
        assert library.mallopt.called == is_kept


def test_elsewhere_it_is_left_alone(library):
    for tape in (None, record(chain(), (5, 6), device="cuda")):
        with memory_kept_for(tape):
            pass
    assert not library.mallopt.called


def net():
    body = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*body, nn.Linear(8, 3)).eval()


READINGS = {
    "checkup": lambda model, x, _: cs.checkup(model, x.split(8)).to_json(),
    "occlusion": lambda model, x, _: cs.sight.occlusion(model, x[0]).to_json(),
    "gallery": lambda model, x, out: cs.gallery(model, x, top=3, out=out).digest,
}


@pytest.mark.parametrize("name", READINGS)
def test_readings_keep_memory_and_are_the_same_bits_with_and_without(tmp_path, monkeypatch, name):
    torch.manual_seed(0)
    model, x, found = net(), torch.randn(24, 3, 20, 20), []
    for variable in ("MALLOC_TRIM_THRESHOLD_", "ANOTHER"):
        with monkeypatch.context() as patch:
            begun = Mock(wraps=_begin)
            patch.setenv(variable, "1")
            patch.setattr("convscope.core.allocator._begin", begun)
            found.append(READINGS[name](model, x, tmp_path / variable))
            assert begun.called == (variable == "ANOTHER")
    assert found[0] == found[1]
