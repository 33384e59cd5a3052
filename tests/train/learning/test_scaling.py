"""Scaled losses: the same gradients, skipped overflows, and a scale that adapts and resumes."""

import pytest
import torch
from torch import nn

from convscope.train.learning.scaling import Scaling


def _step(scaling, optimizer, weight, gradient):
    optimizer.zero_grad()
    scaling.scaled((weight * gradient).sum()).backward()
    scaling.unscale(optimizer)
    scaling.step(optimizer)


@pytest.mark.parametrize("fused", [False, True])
def test_an_overflow_skips_the_step_halves_the_scale_and_is_counted(fused):
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.5, fused=fused)
    scaling = Scaling(torch.device("cpu"))
    _step(scaling, optimizer, weight, torch.tensor([0.5, 0.25, 0.0]))
    assert torch.equal(weight.detach(), torch.tensor([0.5, 0.75, 1.0]))
    for bad in (torch.inf, torch.nan):
        _step(scaling, optimizer, weight, torch.tensor([1.0, bad, 0.0]))
    assert torch.equal(weight.detach(), torch.tensor([0.5, 0.75, 1.0]))
    assert (scaling.num_skipped, float(scaling.state_dict()["scale"])) == (2, 65536 / 4)
    _step(scaling, optimizer, weight, torch.tensor([0.0, 0.0, 1.0]))  # momentum of the first step alone
    assert torch.equal(weight.detach(), torch.tensor([0.25, 0.625, 0.0]))
    assert scaling.num_skipped == 2


def test_the_scale_doubles_after_two_thousand_steps_in_a_row_counted_over_a_resumption():
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    scaling = Scaling(torch.device("cpu"))
    for _ in range(1500):
        _step(scaling, optimizer, weight, torch.ones(1))
    resumed = Scaling(torch.device("cpu"))
    _step(resumed, optimizer, weight, torch.full((1,), torch.inf))
    resumed.load_state_dict(scaling.state_dict())
    assert resumed.num_skipped == 0
    for _ in range(499):
        _step(resumed, optimizer, weight, torch.ones(1))
    assert float(resumed.state_dict()["scale"]) == 65536
    _step(resumed, optimizer, weight, torch.ones(1))
    assert float(resumed.state_dict()["scale"]) == 2 * 65536
