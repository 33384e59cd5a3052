"""A comparison in a terminal of 80 columns."""

from dataclasses import replace

import pytest
from rich.console import Console

from convscope.train import TrainConfig
from convscope.train.comparing import Claim, Comparison, ComparisonForecast, Contrast, Published
from convscope.train.comparing.forecast import Probe
from convscope.train.comparing.judging import difference, judge
from convscope.train.comparing.result import ArmResult, Made, Reached, SeedRun
from convscope.train.comparing.statistics import interval

ERRORS = {"no norm, lr 0.1": [0.2, 0.21, 0.23, 0.19, 0.22], "batch, lr 0.1": [0.1, 0.12, 0.11, 0.09, 0.13]}


def arm(name, errors):
    runs = tuple(
        SeedRun(seed, f"runs/{seed}", "finished", 90, error, error, 0.5, 0.4, error / 2, error / 2, 30)
        for seed, error in enumerate(errors)
    )
    over = interval(errors)
    half = interval([error / 2 for error in errors])
    return ArmResult(name, "zfnet", {}, TrainConfig(), runs, over, over, half, half,
                     Reached(5, 5, 30.0, 30), 0, 0, None, ())  # fmt: skip


@pytest.fixture
def found():
    base, other = ERRORS
    arms = tuple(arm(name, errors) for name, errors in ERRORS.items())
    runs = {each.name: each.runs for each in arms}
    claim = Claim("c", "Batch norm ends with fewer errors.", Contrast("final_error", (other,), (base,)),
                  Published("23.6 → 34.7 %", "Wu and He 2018"))  # fmt: skip
    contrasts = (Contrast("final_error", (other,), (base,)), Contrast("gap", (other,), (base,)),
                 Contrast("steps_to_target", (other,), (base,), scale="ratio"))  # fmt: skip
    made = Made("convscope compare", "a machine", {"torch": "2"}, 2, 1, "today")
    return Comparison(
        "try", "Which?", "", (), "", "out", "digits", (0, 1, 2, 3, 4), 0.2, True, base, arms, (),
        tuple(difference(each, runs, 5) for each in contrasts), (judge(claim, runs, 5),), ("a note",), made,
    )  # fmt: skip


def shown(result):
    console = Console(width=80, no_color=True)
    with console.capture() as captured:
        console.print(result)
    return captured.get()


def test_arms_differences_and_verdicts_fit_into_eighty_columns(found):
    text = shown(found)
    assert max(map(len, text.splitlines())) <= 80
    lines = {line.strip().split("  ")[0]: line for line in text.splitlines() if line.strip()}
    assert "21.0 %" in lines["no norm, lr 0.1"]
    assert "30 (5/5)" in lines["no norm, lr 0.1"]
    row = [line.split() for line in text.splitlines() if "established" in line and "0.062" in line]
    assert row[0][-7:] == ["−10", "−11.5", "to", "−8.48", "0.062", "1×", "established"]
    assert "supported: Batch norm ends with fewer errors." in text
    assert "−10 points, 95 % −11.5 to −8.48, 5 seeds, one-sided p = 0.031" in text
    assert "23.6 → 34.7 % (Wu and He 2018)" in text
    assert "a note" in text


def test_what_is_missing_is_a_dash(found):
    empty = replace(found.arms[0], runs=(), final_error=None, gap=None, reached=Reached(0, 0, None, None))
    text = shown(replace(found, arms=(empty,), differences=(), verdicts=(), target=None))
    assert text.count("–") >= 3


def test_a_forecast_says_time_disk_and_memory():
    probe = Probe("batch", 32, 1000, 100, 0.02, 0.5, 4096, 2**30)
    forecast = ComparisonForecast(10, 8, 640, 75.0, 2, 1, 32768, 2**40, 2**31, 2**30, (probe,))
    text = shown(forecast)
    text = " ".join(text.split())
    for part in (
        "8 of 10 runs left, 640 steps",
        "about 1 min 15 s, 2 runs at a time",
        "20.0 ms",
        "may not fit",
    ):
        assert part in text
    assert "started" not in text
    text = " ".join(shown(replace(forecast, processes=1, start_seconds=12.0)).split())
    assert "one run at a time; 12.0 s of it until a process has started and read its images" in text
