"""Runs that never reached the target: no verdict may depend on when they would have."""

import itertools
import math
import random
from dataclasses import replace

import pytest

from convscope.train.comparing import Claim, Contrast
from convscope.train.comparing.judging import difference, judge
from convscope.train.comparing.pairs import pairs_of
from convscope.train.comparing.result import SeedRun

HORIZON = 100


def runs(**arms):
    """Steps of runs by arm; a text of digits is a run that ended there without reaching the target."""
    return {
        arm: [
            SeedRun(seed, "", "finished", steps=int(steps) if isinstance(steps, str) else HORIZON,
                    steps_to_target=None if isinstance(steps, str) else steps)
            for seed, steps in enumerate(column)
        ]
        for arm, column in arms.items()
    }  # fmt: skip


def ratio(direction="lower", arms=("a",), against=("b",), **words):
    return Claim("c", "s", Contrast("steps_to_target", arms, against, direction, "ratio", **words))


def test_the_quickest_of_several_rates_is_known_though_others_never_got_there():
    found = judge(
        ratio(arms=("slow", "quick"), reduce="lowest"),
        runs(slow=["100"] * 5, quick=[20] * 5, b=[80] * 5),
        5,
    )
    assert (found.verdict, found.bound) == ("supported", "exact")
    assert found.interval.mean == pytest.approx(0.25)
    # but not if the other one gave up before
    found = judge(
        ratio(arms=("slow", "quick"), reduce="lowest"), runs(slow=["10"] * 5, quick=[20] * 5, b=[80] * 5), 5
    )
    assert found.bound == "exact" or found.values == pytest.approx([0.25] * 5)
    assert found.verdict == "supported"


@pytest.mark.parametrize("margin", [1.1, 1.5, 10.0])
def test_two_arms_that_never_got_there_arent_the_same(margin):
    never = ["100"] * 5
    found = judge(ratio("same", margin=margin), runs(a=never, b=never), 5)
    assert (found.verdict, found.p) == ("can't be told", None)
    # one that gave up at 1.4 times the other's steps isn't within 1.5 times of them
    found = judge(ratio("same", margin=1.5), runs(a=["100"] * 5, b=[71, 72, 70, 73, 71]), 5)
    assert found.verdict == "can't be told"
    assert judge(ratio("same", margin=1.2), runs(a=["100"] * 5, b=[71] * 5), 5).verdict == "contradicted"


def test_a_bound_that_points_the_other_way_supports_nothing():
    """Nine seeds go as claimed; in one the claimed arm never got there at all."""
    a, b = [20 + s for s in range(9)] + ["100"], [80 + s for s in range(9)] + [90]
    found = judge(ratio(), runs(a=a, b=b), 10)
    assert (found.verdict, found.bound) == ("can't be told", "at least")
    assert "turn it round" in found.sentence
    assert not difference(ratio().measure, runs(a=a, b=b), 10).is_established
    assert judge(ratio(), runs(a=a[:9], b=b[:9]), 9).verdict == "supported"


def test_a_bound_short_of_the_margin_contradicts_nothing():
    """Two times fewer are claimed; the baseline was given up at 1.25 times."""
    arms = runs(a=[80, 81, 79, 80, 82], b=["100"] * 5)
    found = judge(ratio(margin=2), arms, 5)
    assert (found.verdict, found.bound) == ("can't be told", "at most")
    assert judge(ratio(), arms, 5).verdict == "supported"
    assert judge(ratio("higher"), arms, 5).verdict == "contradicted"


def test_bounds_on_both_sides_leave_no_number():
    found = judge(ratio(), runs(a=[10, 10, 10, 10, "100"], b=["100", 50, 50, 50, 50]), 5)
    assert (found.bound, found.interval, found.values) == ("open", None, (None,) * 5)


@pytest.mark.parametrize("reduce", ["mean", "lowest", "highest", "spread", "change"])
@pytest.mark.parametrize("scale", ["ratio", "difference"])
def test_ends_hold_whatever_the_runs_would_have_done(reduce, scale):
    """Against chance completions: each run that gave up reaches the target at some later step."""
    draw = random.Random(0)
    for _ in range(60):
        columns = {
            name: [draw.choice([draw.randint(1, 99), str(draw.randint(1, 99))])] for name in ("a", "b", "c")
        }
        contrast = Contrast("steps_to_target", ("a", "b"), ("c",), scale=scale, reduce=reduce)
        if reduce in ("spread", "change") and scale == "ratio":
            continue
        (value,) = pairs_of(contrast, runs(**columns), 1).values
        values = []
        for extra in itertools.product([0, 1, 7, 1000], repeat=3):
            a, b, c = (
                int(column[0]) + (more if isinstance(column[0], str) else 0)
                for column, more in zip(columns.values(), extra, strict=True)
            )
            ours = {"mean": (a + b) / 2, "lowest": min(a, b), "highest": max(a, b),
                    "spread": max(a, b) - min(a, b), "change": b - a}[reduce]  # fmt: skip
            theirs = 0 if reduce in ("spread", "change") else c
            values.append(math.log(ours / theirs) if scale == "ratio" else ours - theirs)
        assert value.low <= min(values) + 1e-9
        assert value.high >= max(values) - 1e-9
        if math.isfinite(value.low) and reduce != "spread":  # 0 where the steps could be equal
            assert value.low == pytest.approx(min(values))
        if math.isfinite(value.high):
            assert value.high == pytest.approx(max(values))


def test_seeds_that_are_left_because_the_others_diverged_are_no_fair_choice():
    good = {"train_loss": 0.1}
    arms = {
        "a": [replace(SeedRun(s, "", "finished"), **good) for s in range(6)]
        + [SeedRun(s, "", "diverged") for s in (6, 7)],
        "b": [SeedRun(s, "", "finished", train_loss=0.5 + s / 100) for s in range(8)],
    }
    claim = Claim("c", "s", Contrast("train_loss", ("a",), ("b",)))
    found = judge(claim, arms, 8)
    assert found.verdict == "can't be told"
    assert "2 of 8 seeds have no such number, because a run diverged" in found.sentence
    # a run that couldn't be trained for another reason is only left out
    arms["a"][6:] = [SeedRun(s, "", "failed") for s in (6, 7)]
    assert judge(claim, arms, 8).verdict == "supported"


def test_a_ratio_with_zero_is_told():
    arms = {
        "a": [SeedRun(s, "", "finished", final_error=0.0 if s == 0 else 0.1) for s in range(6)],
        "b": [SeedRun(s, "", "finished", final_error=0.3) for s in range(6)],
    }
    found = judge(Claim("c", "s", Contrast("final_error", ("a",), ("b",), scale="ratio")), arms, 6)
    assert (found.verdict, found.num_seeds) == ("can't be told", 5)
    assert "no ratio" in found.sentence


def test_rounding_decides_nothing():
    """0.3 − 0.2 is less than 0.1 in binary, in every seed alike."""
    arms = {
        "a": [SeedRun(s, "", "finished", final_error=0.3) for s in range(5)],
        "b": [SeedRun(s, "", "finished", final_error=0.2) for s in range(5)],
    }
    claim = Claim("c", "s", Contrast("final_error", ("a",), ("b",), "lower", margin=0.0))
    for direction in ("higher", "lower"):
        measure = replace(claim.measure, direction=direction, margin=0.1)
        verdict = judge(replace(claim, measure=measure), arms, 5).verdict
        assert verdict == ("can't be told" if direction == "higher" else "contradicted")
    equal = {"a": arms["a"], "b": [replace(r, final_error=0.1 + 0.2) for r in arms["b"]]}
    assert judge(claim, equal, 5).interval.mean == 0.0


def test_sameness_is_two_exact_tests():
    """Five pairs within the margin: one pattern of signs of 32 on either side."""
    arms = {
        "a": [SeedRun(s, "", "finished", final_error=0.2 + s / 1000) for s in range(5)],
        "b": [SeedRun(s, "", "finished", final_error=0.2) for s in range(5)],
    }
    found = judge(Claim("c", "s", Contrast("final_error", ("a",), ("b",), "same", margin=0.01)), arms, 5)
    assert (found.verdict, found.p) == ("supported", 1 / 32)


def test_with_more_than_twenty_pairs_the_interval_alone_decides_and_says_so():
    arms = {
        "a": [SeedRun(s, "", "finished", final_error=0.2 + s / 1000) for s in range(21)],
        "b": [SeedRun(s, "", "finished", final_error=0.3) for s in range(21)],
    }
    found = judge(Claim("c", "s", Contrast("final_error", ("a",), ("b",))), arms, 21)
    assert (found.verdict, found.p) == ("supported", None)
    assert "interval alone" in found.sentence
