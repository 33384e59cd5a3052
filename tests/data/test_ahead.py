"""Reading ahead: order, bounds, exceptions, early ends."""

import random
import threading
import time

import pytest

from convscope.data.ahead import default_threads, read_ahead


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_order_is_kept_however_long_each_takes(threads):
    def slow(number):
        time.sleep(0.004 if number % 3 == 0 else 0)
        return number * 10

    assert list(read_ahead(slow, range(40), threads, most=5)) == [number * 10 for number in range(40)]
    assert list(read_ahead(slow, [], threads, most=5)) == []


@pytest.mark.parametrize("most", [1, 2, 7])
def test_never_more_than_so_many_wait(most):
    begun = []
    reading = read_ahead(begun.append, range(30), threads=4, most=most)
    assert begun == []
    for taken, _ in enumerate(reading, 1):
        time.sleep(0.002)
        assert len(begun) - taken < most
    assert sorted(begun) == list(range(30))


def test_several_read_at_once():
    meeting = threading.Barrier(3, timeout=10)
    assert len(list(read_ahead(lambda _: meeting.wait(), range(3), threads=3, most=3))) == 3


@pytest.mark.parametrize("threads", [0, 2])
def test_an_exception_comes_in_its_place(threads):
    def fails(number):
        if number == 3:
            raise KeyError("three")
        return number

    reading = read_ahead(fails, range(100), threads, most=4)
    assert [next(reading) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="three"):
        next(reading)
    assert not any(thread.name.startswith("convscope-read") for thread in threading.enumerate())


def test_stopping_early_stops_the_threads():
    begun = []
    reading = read_ahead(begun.append, range(1000), threads=2, most=4)
    next(reading)
    reading.close()
    assert len(begun) <= 4
    assert not any(thread.name.startswith("convscope-read") for thread in threading.enumerate())


def test_no_random_number_is_drawn():
    before = random.getstate()
    list(read_ahead(str, range(9), threads=2, most=3))
    assert random.getstate() == before


def test_there_is_a_thread():
    assert 1 <= default_threads() <= 16
