"""The states that are made without a step equal those that PyTorch's own first step makes."""

import pytest
import torch

from convscope.tape import TrainingPlan, record
from convscope.tape.states import create_states

OPTIMIZERS = ["sgd", "sgd-momentum", "adam", "adamw", "rmsprop"]
# PyTorch has no fused RMSprop.
CASES = [(o, kernels) for o in OPTIMIZERS for kernels in (True, False, "fused")][:-1]


@pytest.mark.parametrize(("optimizer", "foreach"), CASES)
@pytest.mark.parametrize("default", [torch.float32, torch.float64])
def test_same_states_as_a_first_step(optimizer, foreach, default):
    plan = TrainingPlan(optimizer, foreach=foreach)
    torch.set_default_dtype(default)
    try:
        states = []
        for made_by_a_step in (True, False):
            layer = torch.nn.Conv2d(2, 4, 3).to(memory_format=torch.channels_last).float()
            layer.bias.grad = None
            layer.weight.grad = torch.ones_like(layer.weight)
            own = plan.make_optimizer(list(layer.parameters()))
            if made_by_a_step:
                own.step()
            else:
                create_states(own, layer.parameters())
            states.append([own.state.get(p, {}) for p in layer.parameters()])
    finally:
        torch.set_default_dtype(torch.float32)
    for theirs, ours in zip(*states):
        assert {k: _layout(v) for k, v in theirs.items()} == {k: _layout(v) for k, v in ours.items()}


def _layout(state):
    return state.shape, state.stride(), state.dtype


def test_reading_step_counters_is_no_assumption():
    tape = record(torch.nn.Linear(3, 2), (2, 3), TrainingPlan("adamw", foreach=False))
    assert tape.assumptions == ()
