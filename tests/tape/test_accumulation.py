"""Gradients that meet are summed in place, as in a run that nobody records."""

import torch
from torch import nn

from convscope.tape import TrainingPlan, record

PLAN = TrainingPlan("sgd", loss=lambda outputs: outputs.sum())


class Branches(nn.Module):
    def __init__(self, num_branches):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.branches = nn.ModuleList(nn.Linear(6, 6) for _ in range(num_branches))

    def forward(self, x):
        y = self.first(x)
        return sum(branch(y) for branch in self.branches)


def sums_of(tape):
    return [call for call in tape.calls if call.op == "add" and call.phase == "backward"]


def test_the_first_gradient_ends_where_the_sum_begins():
    for num_branches in (2, 3, 5):
        tape = record(Branches(num_branches), (4, 6), PLAN)
        sums = sums_of(tape)
        assert len(sums) == num_branches - 1
        for call in sums:
            first, second = (tape.storages[tape.values[value].storage] for value in call.inputs)
            assert first.death == call.index
            assert second.death == call.index + 1


def test_pytorch_does_so_in_a_real_run():
    """The sum that reaches the first layer lies where the gradient lay that came first."""
    net, addresses = Branches(2), {}
    y = net.first(torch.randn(4, 6))
    outputs = [branch(y) for branch in net.branches]

    def note(name):
        def hook(gradients, *_):
            addresses[name] = next(g.data_ptr() for g in gradients if g is not None and g.shape == (4, 6))

        return hook

    for index, output in enumerate(outputs):
        output.grad_fn.register_hook(note(index))
    y.grad_fn.register_prehook(note("sum"))
    (outputs[0] + outputs[1]).sum().backward()
    assert addresses["sum"] in (addresses[0], addresses[1])


def test_a_gradient_that_something_else_holds_stays():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x):
            y = self.first(x)
            return self.second(y) + y  # the gradient goes both ways

    tape = record(Twice(), (4, 6), PLAN)
    (call,) = sums_of(tape)
    expanded = tape.values[call.inputs[0]]
    assert expanded.stride == (0, 0)  # the loss's gradient, one number, can't take a sum
    assert tape.storages[expanded.storage].death > call.index


def test_what_a_layers_own_backward_adds_is_a_new_block():
    """``std_mean`` differentiates into two terms, which its own formula adds."""

    class Deviation(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(6, 6)

        def forward(self, x):
            deviation, mean = torch.std_mean(self.first(x).exp(), dim=1)
            return deviation + mean

    tape = record(Deviation(), (4, 6), PLAN)
    own = [call for call in sums_of(tape) if tape.values[call.output].shape == (4, 6)]
    assert len(own) == 1
    assert all(tape.storages[tape.values[value].storage].death > own[0].index for value in own[0].inputs)
