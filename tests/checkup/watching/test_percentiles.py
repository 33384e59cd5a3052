import math

import numpy as np
import pytest
import torch
from torch import nn

from convscope.checkup.watching.percentiles import PercentileLog

CONV, LINEAR = nn.Conv2d(1, 1, 1), nn.Linear(1, 1)


def test_against_numpy():
    log, x = PercentileLog(), torch.randn(6, 3, 8, 7) * torch.tensor([1.0, 9.0, 3.0])[:, None, None] + 2
    log.add("conv", CONV, "output", x)
    log.add("conv", CONV, "output", x + 100)  # a second call of the same step
    log.step_ends(4)
    (row,) = log.found()
    assert (row.path, row.channel, row.of, row.steps) == ("conv", 2, "output", (4,))
    expected = np.percentile(x[:, 2].numpy(), [15, 50, 85])
    assert [row.low[0], row.median[0], row.high[0]] == pytest.approx(expected.tolist(), rel=1e-5)
    assert log.latest() == {("conv", "output"): (row.low[0], row.median[0], row.high[0])}


def test_linear_layers_have_their_channels_last():
    log, x = PercentileLog(), torch.randn(5, 11, 3)
    log.add("fc", LINEAR, "output", x)
    log.step_ends(0)
    (row,) = log.found()
    assert row.median[0] == pytest.approx(float(np.median(x[..., row.channel].numpy())), abs=1e-6)


def test_large_layers_are_sampled_all_over():
    torch.manual_seed(0)
    log, x = PercentileLog(), torch.randn(32, 1, 112, 112)
    x[:, :, :56] += 4
    log.add("conv", CONV, "output", x)
    log.step_ends(0)
    (row,) = log.found()
    expected = np.percentile(x.numpy(), [15, 50, 85])
    assert [row.low[0], row.median[0], row.high[0]] == pytest.approx(expected.tolist(), abs=0.12)


def test_later_changes_in_place_dont_matter():
    log, x = PercentileLog(), torch.ones(4, 2, 3, 3)
    log.add("conv", CONV, "output", x)
    x.zero_()
    log.step_ends(0)
    assert log.found()[0].median == (1.0,)


def test_nan_is_nan():
    log = PercentileLog()
    log.add("conv", CONV, "output", torch.full((4, 2, 3, 3), math.nan))
    log.step_ends(0)
    assert math.isnan(log.found()[0].median[0])


def test_long_runs_are_thinned():
    log = PercentileLog()
    for step in range(2000):
        log.add("conv", CONV, "output", torch.full((2, 1, 1, 1), float(step)))
        log.step_ends(step)
    (row,) = log.found()
    assert 256 <= len(row.steps) <= 512
    assert row.steps[0] == 0
    assert row.steps[-1] > 1980
    assert row.median == tuple(float(step) for step in row.steps)
    assert len({after - before for before, after in zip(row.steps, row.steps[1:], strict=False)}) == 1
