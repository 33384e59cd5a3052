"""Standard error while the profiler starts and stops: its notes go, everything else comes."""

import os
import sys

import pytest

from convscope.cost.measured.quiet import without_profiler_notes


def test_only_the_profilers_notes_disappear(capfd):
    sys.stderr.write("before\n")
    with without_profiler_notes():
        os.write(2, b"USDT:2026-01-01 1:1 Handler.cpp:52] profiler_start\nERROR: something else\n")
    sys.stderr.write("after\n")
    assert capfd.readouterr().err == "before\nERROR: something else\nafter\n"


def test_after_an_exception(capfd):
    with pytest.raises(ValueError), without_profiler_notes():
        os.write(2, b"why\n")
        raise ValueError
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "why\nafter\n"


def test_a_process_without_standard_error(monkeypatch):
    def closed(_):
        raise OSError

    monkeypatch.setattr(os, "dup", closed)
    with without_profiler_notes():
        reached = True
    assert reached
