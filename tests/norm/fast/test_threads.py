"""Kernels in several threads and processes: the same bits, no one left behind, no exception lost."""

import multiprocessing
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

pytest.importorskip("numba")

from convscope.norm.fast.activation import Piecewise
from convscope.norm.fast.cpu import run
from convscope.norm.fast.cpu.threads import divided

RELU = Piecewise(low=0.0)
SIZES = {
    "planes": ((3, 5, 12, 12), False),
    "columns": ((3, 50, 7, 7), False),
    "rows": ((7, 17, 20, 20), True),
    "few rows": ((5, 40), True),
}


@pytest.fixture
def restored_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def results(x, dy):
    weight, bias = torch.linspace(-1, 2, x.shape[1]), torch.linspace(0.5, -0.5, x.shape[1])
    y, *statistics = run.forward(x, weight, bias, 1e-5, RELU)
    again = run.apply(x, weight, bias, statistics, 1e-5, RELU)
    return y, *statistics, again, *run.backward(dy, x, weight, bias, statistics, 1e-5, RELU)


def batch(name, dtype=torch.float32):
    size, by_rows = SIZES[name]
    x = torch.randn(size).to(dtype)
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if by_rows else x


def equal(one, other):
    return all(torch.equal(first, second) for first, second in zip(one, other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SIZES)
def test_the_same_bits_with_any_number_of_threads(name, dtype, restored_threads):
    x = batch(name, dtype)
    dy = torch.randn_like(x)
    torch.set_num_threads(1)
    should = results(x, dy)
    for threads in (2, 3, 7, 64):
        torch.set_num_threads(threads)
        assert equal(results(x, dy), should)


def test_several_callers_at_once(restored_threads):
    batches = [batch(name) for name in SIZES] * 4
    torch.set_num_threads(1)
    should = [results(x, x) for x in batches]
    torch.set_num_threads(3)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(results, batches, batches))
    assert all(map(equal, found, should))


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 100])
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_every_part_is_done_once(length, threads, restored_threads):
    torch.set_num_threads(threads)
    done, callers = [0] * length, set()

    def kernel(name, first, last):
        assert name == "argument"
        assert first < last
        callers.add(threading.get_ident())
        for one in range(first, last):
            done[one] += 1

    divided(kernel, length, "argument")
    assert done == [1] * length
    assert threading.get_ident() in callers


@pytest.mark.parametrize("where", [0, 5, 9])
def test_an_exception_reaches_the_caller_when_all_is_quiet(where, restored_threads):
    torch.set_num_threads(3)
    running = []

    def kernel(first, last):
        running.append(first)
        if first <= where < last:
            raise ValueError(where)
        time.sleep(0.05)
        running.remove(first)

    with pytest.raises(ValueError, match=str(where)):
        divided(kernel, 10)
    assert len(running) == 1
    divided(lambda first, last: None, 10)  # and the threads are there for the next call


def _child(x, dy, should, answers):
    answers.put(equal(results(x, dy), should))


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_has_threads_of_its_own(restored_threads):
    torch.set_num_threads(3)
    x = batch("planes")
    should = results(x, x)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_child, args=(x, x, should, answers))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert answers.get()
    assert equal(results(x, x), should)


PROGRAM = """
import atexit, threading, time, torch
from convscope.norm.fast.activation import Piecewise
from convscope.norm.fast.cpu import run

torch.set_num_threads(3)
x = torch.randn(3, 5, 12, 12)
y = run.forward(x, None, None, 1e-5, Piecewise())[0]

def later(name):
    print(name, torch.equal(run.forward(x, None, None, 1e-5, Piecewise())[0], y), flush=True)

def train():
    threading.main_thread().join()
    time.sleep(0.05)
    later("thread")

threading.Thread(target=train).start()
atexit.register(later, "atexit")
"""


def test_kernels_run_on_after_the_main_thread_has_ended():
    """Then no thread can be started any more; and the process ends by itself."""
    run_ = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert run_.returncode == 0, run_.stderr
    assert run_.stdout.split() == ["thread", "True", "atexit", "True"]
    assert not run_.stderr
