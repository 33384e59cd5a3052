"""Verdicts on runs that are made up, so that it is known what they should be."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from convscope.core.errors import ConvscopeError
from convscope.train.comparing import Claim, Contrast, Experiment, Published, table_of
from convscope.train.comparing.judging import difference, judge
from convscope.train.comparing.result import SeedRun

LOW = [0.10, 0.12, 0.11, 0.09, 0.13]
HIGH = [0.20, 0.21, 0.23, 0.19, 0.22]


def runs(quantity, **arms):
    return {
        arm: [
            SeedRun(seed, "", "waiting") if value is None else made(seed, quantity, value)
            for seed, value in enumerate(values)
        ]
        for arm, values in arms.items()
    }


def made(seed, quantity, value):
    return replace(SeedRun(seed, "", "finished", steps=100), **{quantity: value})


def verdict(made_up, quantity="final_error", seeds=5, **measure):
    contrast = Contrast(quantity, **{"arms": ("a",), "against": ("b",), **measure})
    return judge(Claim("c", "a is lower", contrast), runs(quantity, **made_up), seeds)


def test_a_claim_is_supported_and_its_opposite_contradicted():
    found = verdict({"a": LOW, "b": HIGH})
    assert (found.verdict, found.num_seeds, found.p) == ("supported", 5, 1 / 32)
    differences = np.subtract(LOW, HIGH)
    theirs = stats.ttest_rel(LOW, HIGH).confidence_interval(0.95)
    assert found.interval.mean == pytest.approx(differences.mean())
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(theirs))
    assert found.values == pytest.approx(differences)
    contrary = verdict({"a": LOW, "b": HIGH}, direction="higher")
    assert (contrary.verdict, contrary.p) == ("contradicted", 1.0)


def test_four_seeds_never_tell_a_sign():
    found = verdict({"a": LOW[:4], "b": HIGH[:4]}, seeds=4)
    assert found.verdict == "can't be told"
    assert "4 pairs" in found.sentence
    assert "takes 5" in found.sentence


def test_seeds_that_disagree_leave_it_open():
    assert verdict({"a": [0.1, 0.3, 0.1, 0.3, 0.2], "b": [0.2] * 5}).verdict == "can't be told"
    assert verdict({"a": LOW, "b": LOW}).verdict == "can't be told"


def test_interval_and_exact_test_must_agree():
    """Four of six small steps and two large ones: the interval excludes zero, the exact test doesn't."""
    wide = [-0.01, -0.01, -0.01, -0.01, 0.0005, 0.0004]
    found = verdict({"a": [0.5 + x for x in wide], "b": [0.5] * 6}, seeds=6)
    assert found.interval.high < 0.0005
    assert (found.p <= 0.05) == (found.verdict == "supported")


def test_missing_seeds_are_left_out_and_told():
    found = verdict({"a": [*LOW, None], "b": [*HIGH, 0.2]}, seeds=6)
    assert (found.verdict, found.num_seeds, found.values[-1]) == ("supported", 5, None)
    assert "1 of 6 seeds" in found.sentence
    assert verdict({"a": [None] * 5, "b": HIGH}).verdict == "can't be told"


def test_a_margin_asks_for_more():
    assert verdict({"a": LOW, "b": HIGH}, margin=0.05).verdict == "supported"
    assert verdict({"a": LOW, "b": HIGH}, margin=0.3).verdict == "contradicted"


@pytest.mark.parametrize(
    ("margin", "expected"), [(0.2, "supported"), (0.01, "contradicted"), (0.1, "can't be told")]
)
def test_sameness_needs_the_whole_interval(margin, expected):
    assert verdict({"a": LOW, "b": HIGH}, direction="same", margin=margin).verdict == expected


def test_ratios_are_geometric_means():
    steps = {"a": [10, 20, 10, 20, 10], "b": [80, 80, 160, 100, 80]}
    found = verdict(steps, "steps_to_target", scale="ratio", margin=2)
    logs = np.log(np.divide(steps["a"], steps["b"]))
    low, high = stats.t.interval(0.95, 4, loc=logs.mean(), scale=stats.sem(logs))
    assert found.interval.mean == pytest.approx(math.exp(logs.mean()))
    assert (found.interval.low, found.interval.high) == pytest.approx((math.exp(low), math.exp(high)))
    assert (found.verdict, found.bound) == ("supported", "exact")


def test_never_reached_is_a_bound_and_leaves_the_sign_open_where_it_must():
    arms = runs("steps_to_target", a=[10] * 5, b=[None] * 5)
    arms["b"] = [SeedRun(seed, "", "finished", steps=100) for seed in range(5)]
    claim = Claim("c", "a is quicker", Contrast("steps_to_target", ("a",), ("b",), scale="ratio"))
    found = judge(claim, arms, 5)
    assert (found.verdict, found.bound) == ("supported", "at most")
    assert found.interval.mean == pytest.approx(0.1)
    # a needed longer than b was trained: which is quicker isn't known
    arms["a"] = [made(seed, "steps_to_target", 200) for seed in range(5)]
    found = judge(claim, arms, 5)
    assert found.values == pytest.approx([2.0] * 5)
    assert (found.verdict, found.bound) == ("can't be told", "at most")
    arms["a"] = arms["b"]
    found = judge(claim, arms, 5)
    assert (found.verdict, found.bound, found.interval, found.p) == ("can't be told", "open", None, None)


@pytest.mark.parametrize(
    ("reduce", "value"), [("mean", 0.5), ("lowest", 0.2), ("highest", 0.7), ("spread", 0.5), ("change", 0.4)]
)
def test_groups_of_arms_become_one_number(reduce, value):
    arms = {"x": [0.2] * 5, "y": [0.7] * 5, "z": [0.6] * 5}
    found = verdict(arms, arms=("x", "y", "z"), against=(), reduce=reduce)
    assert found.interval.mean == pytest.approx(value)


def test_extra_measures_are_quantities():
    made = {
        arm: [SeedRun(s, "", "finished", measures={"noise.spread": v}) for s, v in enumerate(values)]
        for arm, values in (("a", LOW), ("b", HIGH))
    }
    claim = Claim("c", "a is calmer", Contrast("noise.spread", ("a",), ("b",)))
    assert judge(claim, made, 5).verdict == "supported"


def test_a_difference_is_established_on_either_side_or_open():
    contrast = Contrast("final_error", ("a",), ("b",))
    found = difference(contrast, runs("final_error", a=HIGH, b=LOW), 5)
    assert (found.is_established, found.p) == (True, 2 / 32)
    assert not difference(contrast, runs("final_error", a=HIGH[:4], b=LOW[:4]), 4).is_established


TABLE = table_of("zfnet", "digits", {"norm": ["none", "batch"]})


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        (Contrast("final_eror", ("batch",)), "did you mean 'final_error'"),
        (Contrast("final_error", ("bacht",)), "'batch'"),
        (Contrast("final_error", ("batch",), direction="same"), "without a margin"),
        (Contrast("final_error", ("batch",), scale="ratio", margin=0.5), "margin=0.5"),
        (Contrast("final_error", ("batch",), scale="ratio"), "a ratio to 0"),
        (Contrast("final_error", ()), "without arms"),
    ],
)
def test_impossible_claims_are_refused_before_anything_runs(measure, said):
    claim = Claim("c", "s", measure, Published("1", "someone"))
    with pytest.raises(ConvscopeError, match=said):
        Experiment("e", "q", "p", (), TABLE, (claim,))
