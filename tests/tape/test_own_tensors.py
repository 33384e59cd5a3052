"""A step of the user's own: their optimizers, criteria and other tensors come back as they were."""

import copy
import dataclasses
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from convscope.core.errors import ConvscopeError
from convscope.tape import TrainingPlan, record


def trained_once():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.ones(3, 4)).sum().backward()
    optimizer.step()
    return model, optimizer


def snapshot(model, optimizer):
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    weights = [p.detach().clone() for p in model.parameters()]
    return weights, gradients, copy.deepcopy(optimizer.state_dict())


def same(one, other):
    if isinstance(one, torch.Tensor):
        return type(one) is type(other) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("zero_first", [False, True])
def test_a_users_optimizer_makes_its_step_on_twins(real, zero_first):
    model, optimizer = trained_once()
    before = snapshot(model, optimizer)
    own = [id(p) for p in optimizer.param_groups[0]["params"]]

    def step(model, args, kwargs):
        if zero_first:
            optimizer.zero_grad()
        out = model(*args)
        out.sum().backward()
        optimizer.step()
        return out

    tape = record(model, (2, 4), TrainingPlan(), step, real=real)
    assert same(snapshot(model, optimizer), before)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == own
    states = [storage for storage in tape.storages if storage.role == "optimizer-state"]
    assert sum(storage.nbytes for storage in states) == 2 * 4 * 49 + 4 * 4  # two moments and four counters
    assert any(call.phase == "optimizer" and "addcdiv" in call.op for call in tape.calls)
    # And it goes on as if nothing had been.
    twin, other = copy.deepcopy(model), torch.optim.Adam(model.parameters(), lr=0.1)
    other.load_state_dict(before[2])
    model(torch.ones(3, 4)).sum().backward()
    optimizer.step()
    assert not same([p.detach() for p in model.parameters()], [p.detach() for p in twin.parameters()])


@pytest.mark.parametrize("real", [False, True])
def test_gradients_of_a_criterion_come_back(real):
    criterion, net = nn.Linear(4, 3), nn.Linear(4, 4)
    criterion(torch.ones(1, 4)).sum().backward()
    before = [p.grad.clone() for p in criterion.parameters()]
    record(net, (7, 4), TrainingPlan(loss=lambda out: criterion(out).sum()), real=real)
    assert same([p.grad for p in criterion.parameters()], before)
    assert not any(isinstance(p.grad, FakeTensor) for p in criterion.parameters())


def test_a_criterion_that_counts_is_refused_in_a_simulation_and_restored_after_a_real_run():
    norm, net = nn.BatchNorm1d(4), nn.Linear(4, 4)
    before = copy.deepcopy(norm.state_dict())
    plan = TrainingPlan(loss=lambda out: norm(out).square().sum())
    with pytest.raises(ConvscopeError, match=r"writes to a tensor that is neither a parameter nor a buffer"):
        record(net, (7, 4), plan)
    assert same(norm.state_dict(), before)
    record(net, (7, 4), plan, real=True)
    assert same(norm.state_dict(), before)


class Merging(nn.Linear):
    """Adds its adapter to its weight in evaluation mode, as LoRA layers do."""

    def __init__(self):
        super().__init__(4, 4)
        self.down, self.up = nn.Parameter(torch.ones(2, 4)), nn.Parameter(torch.ones(4, 2))
        self.merged = False

    def train(self, mode=True):
        super().train(mode)
        if mode == self.merged:
            self.weight.data += (-1 if mode else 1) * self.up @ self.down
            self.merged = not mode
        return self

    def forward(self, x):
        y = F.linear(x, self.weight, self.bias)
        return y if self.merged else y + x @ self.down.t() @ self.up.t()


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize(("training", "plan"), [(True, None), (False, TrainingPlan())])
def test_networks_that_change_their_weights_with_their_mode(training, plan, real):
    model = nn.Sequential(Merging()).train(training)
    weight, x = model[0].weight.detach().clone(), torch.randn(2, 4)
    before = model(x)
    tape = record(model, (2, 4), plan, real=real)
    assert torch.equal(model[0].weight, weight)
    assert torch.equal(model(x), before)
    assert (model.training, model[0].merged) == (training, not training)
    assert [call.op for call in tape.calls if call.phase == "forward"].count("addmm") == 1


def test_two_recordings_at_once_leave_pytorchs_switches_as_they_were():
    stance, fast = torch._dynamo.eval_frame._stance.stance, torch.backends.mha.get_fastpath_enabled()
    inside, go_on = threading.Event(), threading.Event()

    class Waits(nn.Module):
        def forward(self, x):
            inside.set()
            go_on.wait(10)
            return x * 2

    first = threading.Thread(target=lambda: record(Waits(), (2, 3)))
    first.start()
    inside.wait(10)
    second = threading.Thread(target=lambda: record(nn.Linear(3, 2), (2, 3), device="cpu"))
    second.start()
    go_on.set()
    first.join()
    second.join()
    assert torch._dynamo.eval_frame._stance.stance == stance
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_outputs_in_any_container_are_known():
    @dataclasses.dataclass(slots=True)
    class Output:
        logits: torch.Tensor
        parts: dict[str, torch.Tensor]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x):
            y = self.layer(x)
            return Output(y, {"double": y * 2})

    tape = record(Net(), (5, 3), TrainingPlan())
    assert [tape.producer(value).op for value in tape.outputs] == ["addmm", "mul"]


def test_micro_batches_after_backward_are_forward_and_loss():
    def step(model, args, kwargs):
        for _ in range(2):
            out = model(*args)
            F.cross_entropy(out, torch.zeros(len(out), dtype=torch.long)).backward()
        return out

    tape = record(nn.Linear(4, 3), (2, 4), TrainingPlan(), step)
    phases = [call.phase for call in tape.calls if call.op in ("addmm", "_log_softmax", "nll_loss_backward")]
    assert phases == ["forward", "loss", "backward"] * 2


def test_the_callers_autocast_is_not_the_plans():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tape = record(nn.Linear(4, 3), (2, 4), device="cpu")
    assert {tape.values[value].dtype for value in tape.outputs} == {torch.float32}


def test_empty_inputs_are_refused():
    with pytest.raises(ConvscopeError, match=r"input of shape \(0, 4\); expected sizes of at least 1"):
        record(nn.Linear(4, 3), torch.zeros(0, 4))


def test_an_input_with_a_history_is_a_leaf():
    x = (torch.ones(2, 4, requires_grad=True)) * 1
    tape = record(nn.Linear(4, 3), x, TrainingPlan())
    assert any(call.op == "mm" for call in tape.in_phase("backward"))
    assert x.grad_fn is not None


def test_a_quantised_buffer_is_named():
    net = nn.Linear(2, 2)
    with pytest.warns(UserWarning, match="quantize"):
        net.register_buffer("codes", torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8))
    with pytest.raises(ConvscopeError, match=r"tensor 'codes' can't be simulated"):
        record(net, (1, 2))
