"""The real step is the plan's, and nothing of it stays in the user's network."""

import copy

import pytest
import torch
from torch import nn

from cases import CASES, state_of
from convscope.core.errors import ConvscopeError
from convscope.core.preserved import preserved_rng
from convscope.cost.measured.real_step import real_step
from convscope.tape import TrainingPlan

PLANS = (
    None,
    TrainingPlan("adamw", clip_grad_norm=1.0),
    TrainingPlan("sgd-momentum", foreach=False, zero_grad_set_to_none=False),
    TrainingPlan("sgd", precision="bf16"),
)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_network_is_untouched(case, plan):
    net = case.make()
    net.register_forward_hook(lambda *_: None)
    next(net.parameters()).grad = torch.ones_like(next(net.parameters()))
    before = state_of(net)
    with preserved_rng(), real_step(net, case.shape, plan) as step:
        step.run()
        step.run()
    assert state_of(net) == before


@pytest.mark.parametrize(
    ("error", "told"), [(ValueError, ConvscopeError), (KeyboardInterrupt, KeyboardInterrupt)]
)
def test_the_network_is_untouched_after_an_exception(error, told):
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x):
            y = self.norm(x)
            if self.norm.num_batches_tracked > 1:
                raise error
            return y.mean((2, 3))

    net = Failing().eval()
    before = state_of(net)
    with pytest.raises(told), preserved_rng(), real_step(net, (2, 3, 4, 4), TrainingPlan()) as step:
        step.run()
        step.run()
    assert state_of(net) == before


def test_gradients_are_those_of_a_plain_loop():
    net = CASES[2].make()  # shared modules and a tied weight
    x = torch.randn(CASES[2].shape)
    twin = copy.deepcopy(net)
    nn.functional.cross_entropy(twin(x), torch.zeros(3, dtype=torch.long)).backward()
    with real_step(net, x, TrainingPlan("sgd")) as step:
        step.run()
        found = {name: p.grad.clone() for name, p in net.named_parameters()}
        assert net.second.weight is net.first.weight
    for name, parameter in twin.named_parameters():
        assert torch.equal(found[name], parameter.grad)


def test_parameters_stay_what_they_were_while_states_grow():
    net = nn.Linear(3, 4)
    with real_step(net, (2, 3), TrainingPlan("adamw")) as step:
        before = net.weight.detach().clone()
        step.run()
        assert torch.equal(net.weight, before)
        assert set(step.optimizer.state[net.weight]) == {"step", "exp_avg", "exp_avg_sq"}


def test_recurrent_layers_use_the_copies():
    net = nn.LSTM(3, 4, batch_first=True)
    own = net.weight_ih_l0
    with real_step(net, (2, 5, 3), TrainingPlan("sgd", loss=lambda outputs: outputs[0].sum())) as step:
        step.run()
        assert net.weight_ih_l0 is not own
        assert net.weight_ih_l0.grad is not None
    assert net.weight_ih_l0 is own
    assert own.grad is None
    assert net._flat_weights[0] is own


def test_inputs_of_every_kind():
    class Two(nn.Module):
        def forward(self, a, b=None):
            assert a.shape == (2, 3)
            assert b.dtype == torch.float32
            return a @ b

    given = torch.ones(3, 5)
    for inputs in (((2, 3), given), {"a": (2, 3), "b": given}, [torch.ones(2, 3), (3, 5)]):
        with real_step(Two(), inputs, None) as step:
            step.run()
    with real_step(nn.Conv2d(3, 4, 3), (2, 3, 5, 5), TrainingPlan(channels_last=True)) as step:
        assert step.args[0].is_contiguous(memory_format=torch.channels_last)
        assert step.model.weight.is_contiguous(memory_format=torch.channels_last)


def test_phases_come_in_order():
    class Noted:
        seen: list[str] = []  # noqa: RUF012

        def __init__(self, name):
            self.seen.append(name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    with real_step(nn.Linear(3, 4), (2, 3), TrainingPlan()) as step:
        step.run(Noted)
    assert Noted.seen == ["zero-grad", "forward", "loss", "backward", "optimizer"]
