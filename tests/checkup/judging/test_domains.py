"""A shared module's statistics are judged as those of all its calls."""

from dataclasses import replace

import torch

from checkup.judging.observed import norm, observation, shifted
from convscope.checkup.judging.domains import mixed_domains
from convscope.checkup.judging.faults import judge
from convscope.checkup.observed import Gap, LayerGap


def _calls(running_mean, running_variance, momentum=0.1, apart=4.0):
    first, second = shifted(256), shifted(256, by=apart, scale=2.0)
    shared = {
        "running_mean": torch.full((3,), running_mean, dtype=torch.float64),
        "running_variance": torch.full((3,), running_variance, dtype=torch.float64),
        "num_batches_tracked": 500,
        "momentum": momentum,
    }
    one = norm(first, **shared)
    return one, replace(norm(second, **shared), address="self#2")


def _faults(*calls, **changes):
    found, _ = judge(observation(*calls, **changes))
    return {(finding.fault, finding.address): finding for finding in found}


def test_a_right_mixture_is_not_stale():
    """Means 0 and 4, variances 1 and 4: mean 2 and variance 2.5 are those of all, and fit neither call."""
    calls = _calls(2.0, 2.5)
    assert mixed_domains(observation(*calls)) == {"self"}
    found = _faults(*calls)
    assert "stale-statistics" not in {fault for fault, _ in found}
    assert "shared-over-domains" in {fault for fault, _ in found}


def test_the_last_call_may_weigh_more():
    """Momentum 0.6: weights 0.4 and 1 over 1.4."""
    assert "stale-statistics" not in {
        fault for fault, _ in _faults(*_calls(4 / 1.4, (0.4 + 4) / 1.4, momentum=0.6))
    }


def test_a_wrong_mixture_is_stale_once():
    found = _faults(*_calls(9.0, 2.5))
    assert [key for key in found if key[0] == "stale-statistics"] == [("stale-statistics", "self#1")]


def test_the_gap_of_a_shared_layer_asks_for_separate_ones():
    share = LayerGap("self#1", "self", 1.0, 0.01)
    found = _faults(*_calls(2.0, 2.5), gap=Gap(2.0, 1.0, 0.01), attribution=(share,))
    assert "a batch norm for each domain" in found["train-eval-gap", "self"].remedy
    alone = _faults(_calls(2.0, 2.5)[0], gap=Gap(2.0, 1.0, 0.01), attribution=(share,))
    assert "cs.norm.recalibrate(model, loader) with shuffled" in alone["train-eval-gap", "self"].remedy
