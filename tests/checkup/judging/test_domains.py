"""A shared module's statistics are judged as those of all its calls."""

from dataclasses import replace

import torch
from torch import nn

from checkup.judging.observed import norm, observation, shifted
from convscope.checkup import checkup
from convscope.checkup.judging.domains import PER_CALL, PER_DOMAIN, mixed_domains
from convscope.checkup.judging.faults import judge
from convscope.checkup.observed import Gap, LayerGap
from convscope.norm import recalibrate


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


class _Twice(nn.Module):
    """A block that is applied twice in a row, or to two kinds of input side by side."""

    def __init__(self, in_a_row):
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())
        nn.init.constant_(self.block[1].bias, 9.0)
        self.in_a_row = in_a_row

    def forward(self, x):
        once = self.block(x)
        return self.block(once) if self.in_a_row else once + self.block(20 * x + 50)


def test_calls_in_a_row_want_a_norm_each_and_not_one_batch():
    for in_a_row, remedy in ((True, PER_CALL), (False, PER_DOMAIN)):
        torch.manual_seed(0)
        found = checkup(_Twice(in_a_row), list(torch.randn(128, 3, 9, 8).split(16))).findings
        (finding,) = [each for each in found if each.fault == "shared-over-domains"]
        assert finding.address == "block.1#2"
        assert finding.remedy == remedy
    assert "a batch norm for each call" in PER_CALL
    assert "torch.cat" not in PER_CALL


def test_the_table_says_what_stale_channels_of_several_calls_are_of():
    """Statistics of a mixture fit no call: rows have stale channels, though no layer is found stale."""
    torch.manual_seed(0)
    model, batches = _Twice(in_a_row=False), list(torch.randn(128, 3, 9, 8).split(16))
    recalibrate(model, batches)
    found = checkup(model, batches)
    assert all(layer.stale_channels for layer in found.layers)
    assert "stale-statistics" not in {each.fault for each in found.findings}
    (line,) = [line for line in str(found).splitlines() if line.startswith("stale at ")]
    assert line.startswith("stale at block.1#1, block.1#2: one layer, whose running statistics are a mixture")
    assert "shared-over-domains" in str(found).partition("stale at ")[2]
    alone = checkup(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)), batches)
    assert "stale at " not in str(alone)
