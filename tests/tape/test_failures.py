"""Why a step couldn't be recorded, in one line."""

import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.tape import TrainingPlan, record

doubled = torch.library.custom_op(
    "failures::doubled", lambda x: 2 * x, mutates_args=(), schema="(Tensor x) -> Tensor"
)
doubled.register_fake(torch.empty_like)


class Run(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.layer, self.function = nn.Linear(4, 4), function

    def forward(self, x):
        return self.function(self.layer(x))


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: torch.ops.failures.doubled(x), "failures::doubled"),
        (lambda x: torch.special.zeta(x.abs() + 2, x.abs() + 2), "zeta"),
    ],
)
def test_an_operator_without_a_backward_formula_is_named(function, name, real):
    net = Run(function)
    with pytest.raises(ConvscopeError) as caught:
        record(net, (2, 4), TrainingPlan(), real=real)
    told = str(caught.value)
    assert told.startswith(f"the operator {name} has no backward formula")
    assert "plan=None (convscope cost --inference)" in told
    assert "input's shape" not in told
    assert "real=True" not in told
    assert record(net, (2, 4), real=real).calls


def test_other_failures_of_the_network_are_about_its_inputs():
    def fails(_):
        raise ValueError("no such derivative for this network")

    with pytest.raises(ConvscopeError, match="check the input's shape"):
        record(Run(fails), (2, 4), TrainingPlan())
