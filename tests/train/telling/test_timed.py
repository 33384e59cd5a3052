"""The time of a run, measured on its own steps."""

import time
from dataclasses import replace

import pytest
import torch

from convscope.report.terminal.forecast import memory_words, time_words
from convscope.train import Forecast, NoProgress, Pulse
from convscope.train.telling.timed import Timed

EPOCHS, STEPS_PER_EPOCH, EVALUATION = 4, 20, 2.5
FORECAST = Forecast(
    "cpu", 32, 3 * 2**30, 2**32, "yes", "", None, 2**20, EPOCHS * STEPS_PER_EPOCH, EPOCHS, EVALUATION
)  # fmt: skip


class _Told(NoProgress):
    def __init__(self):
        self.events = []

    def forecast(self, forecast):
        self.events.append(forecast)

    def step(self, pulse):
        self.events.append(pulse.step)


def told(seconds, monkeypatch, per_epoch=STEPS_PER_EPOCH, evaluation=100.0):
    """What is told when steps take these seconds, with an evaluation after every epoch."""
    clock, told = [0.0], _Told()
    monkeypatch.setattr("convscope.train.telling.timed.time.perf_counter", lambda: clock[0])
    timed = Timed(told, FORECAST, torch.device("cpu"))
    timed.start(FORECAST.steps, 0, EPOCHS)
    for step, taken in enumerate(seconds, 1):
        clock[0] += taken
        timed.step(Pulse(step, FORECAST.steps, 1 + (step - 1) // per_epoch, EPOCHS, None, 0.1, 1.0, 1.0))
        if step % per_epoch == 0:
            clock[0] += evaluation
            timed.epoch(None)
    timed.stop()
    return told.events


def test_long_steps_are_timed_after_three_and_short_ones_after_ten(monkeypatch):
    long = [9, 9, 9, 1, 2, 3, 4, 50, 7, 7]  # median of the fourth to the eighth: 3
    events = told(long, monkeypatch)
    assert events[0] is FORECAST
    assert [events.index(step) for step in (1, 7, 8)] == [1, 7, 9]  # told before step 8 is
    assert events[8].seconds_per_step == 3
    short = [0.1] * 10 + [0.05, 0.01, 0.02, 0.03, 0.04] + [0.1] * 3
    events = told(short, monkeypatch)
    assert [type(event) for event in events].count(Forecast) == 2
    assert events[events.index(15) - 1].seconds_per_step == pytest.approx(0.03)


def test_an_evaluation_belongs_to_no_step(monkeypatch):
    events = told([1.0] * 9, monkeypatch, per_epoch=1)
    assert events[events.index(8) - 1].seconds_per_step == 1.0


def test_times_follow_from_the_step(monkeypatch):
    found = told([2.0] * 8, monkeypatch)[8]
    evaluation = EVALUATION * 2.0
    assert found.seconds_per_epoch == 20 * 2.0 + evaluation
    assert found.seconds_left == 72 * 2.0 + 4 * evaluation
    assert found.seconds_total == 80 * 2.0 + 4 * evaluation
    assert found.peak_bytes == FORECAST.peak_bytes


def test_a_short_run_gets_no_times(monkeypatch):
    events = told([1.0] * 7, monkeypatch)
    assert [type(event) for event in events].count(Forecast) == 1


def test_the_words_of_a_forecast(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert memory_words(FORECAST) == "3.00 GiB at 32 images at a time, 4.00 GiB available"
    assert time_words(FORECAST) == ""
    timed = FORECAST.timed(2.0, 8, 0, 16.0)  # 45 s an epoch, 180 in all, 164 left
    assert time_words(timed, now=0.0) == "about 45 s an epoch, 3 min in all, until 00:02"
    late = time_words(timed, now=86_399.0)
    assert late == "about 45 s an epoch, 3 min in all, until Fri 02 Jan, 00:02"


def test_checkpoints_and_measurements_inside_epochs_belong_to_no_step(monkeypatch):
    clock, told = [0.0], _Told()
    monkeypatch.setattr("convscope.train.telling.timed.time.perf_counter", lambda: clock[0])
    timed = Timed(told, FORECAST, torch.device("cpu"))
    timed.start(FORECAST.steps, 0, EPOCHS)
    for step in range(1, 9):
        clock[0] += 2.0 + 30.0  # a step, and what follows it
        timed.step(Pulse(step, FORECAST.steps, 1, EPOCHS, None, 0.1, 1.0, 1.0, seconds_left_out=30.0 * step))
    assert told.events[8].seconds_per_step == 2.0


@pytest.mark.parametrize("every", [1, 3, 7, 10, 20, 40, 1000])
def test_measurements_inside_epochs_take_time_too(every):
    forecast = replace(FORECAST, evaluate_every=every, measurement_steps=1.5)
    seconds, step = 2.0, 33
    measured = [s for s in range(1, 81) if s % every == 0 and s % STEPS_PER_EPOCH != 0]
    found = forecast.timed(seconds, step, finished_epochs=1, passed=0.0)
    later = sum(s > step for s in measured)
    assert found.seconds_left == (80 - step) * seconds + later * 1.5 * seconds + 3 * EVALUATION * seconds
    expected = 20 * seconds + len(measured) / EPOCHS * 1.5 * seconds + EVALUATION * seconds
    assert found.seconds_per_epoch == pytest.approx(expected)
