"""Real times: sums, what a known slowness adds, and PyTorch's profiler as the other clock."""

import time

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from cases import CASES, CheckpointedNet, FunctionalNet, SharedNet, state_of
from convscope.core.errors import ConvscopeError
from convscope.cost.measured.timing import measure
from convscope.cost.rows import table_of
from convscope.tape import TrainingPlan, record

PLANS = (None, TrainingPlan("adamw", clip_grad_norm=1.0))
NAP = 0.05


class Sleepy(nn.ReLU):
    """Sleeps in forward."""

    def forward(self, x):
        time.sleep(NAP)
        return super().forward(x)


class SleepyBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(NAP)
        return gradient * 2


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rows_are_the_tables_and_add_up(case, plan):
    net = case.make()
    before = state_of(net)
    found = measure(net, case.shape, plan, repeats=2, warmup=1)
    assert state_of(net) == before
    rows = table_of(record(net, case.shape, plan, device="cpu")).rows
    assert [row.address for row in found.rows] == [row.address for row in rows]
    assert [row.forward_flops for row in found.rows] == [row.forward_flops for row in rows]
    parts = [row.seconds for row in found.rows] + [each.seconds.median for each in found.between]
    assert sum(parts) + found.optimizer.median == pytest.approx(found.seconds)
    shares = sum(row.share for row in found.rows)
    assert 0 < shares <= 1
    times = [t for row in found.rows for t in (row.forward, row.backward)] + [found.unwatched]
    assert all(0 <= each.low <= each.median <= each.high for each in times)
    assert all(row.forward.median > 0 for row in found.rows)
    products = [row for row in found.rows if row.forward_flops]
    for row in products:
        flops = row.forward_flops + row.backward_flops
        assert row.flops_per_second == pytest.approx(flops / row.seconds)
        assert (row.backward.median > 0) == (plan is not None)
    assert (found.optimizer.median > 0) == (plan is not None)
    assert found.unwatched.median > 0


def test_a_sleeping_layer_is_the_slowest_row():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Sleepy(), nn.Conv2d(4, 2, 3))
    found = measure(net, (2, 3, 9, 9), TrainingPlan(loss=lambda y: y.sum()), repeats=2, warmup=0)
    slowest = max(found.rows, key=lambda row: row.seconds)
    assert slowest.address == "1#1"
    assert slowest.forward.low >= NAP
    assert found.unwatched_forward.low >= NAP
    assert found.seconds >= NAP


def test_only_the_call_that_sleeps_is_slow():
    class Moody(nn.ReLU):
        calls = 0

        def forward(self, x):
            Moody.calls += 1
            time.sleep(NAP if Moody.calls % 2 == 0 else 0)
            return super().forward(x)

    relu = Moody()
    net = nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu)
    found = measure(net, (2, 3, 9, 9), None, repeats=2, warmup=1)
    assert found.row("1#2").forward.low >= NAP > found.row("1#1").forward.median


def test_a_networks_own_code_is_between_operators():
    class SleepyNet(FunctionalNet):
        def forward(self, x):
            time.sleep(NAP)
            return super().forward(x)

    found = measure(SleepyNet(), (4, 3, 9, 14), None, repeats=2, warmup=0)
    assert found.between[0].path == "self"
    assert found.between[0].seconds.low >= NAP
    assert sum(row.seconds for row in found.rows) < NAP


def test_autograds_own_time_is_between_operators_of_backward():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return SleepyBackward.apply(self.conv(x)).mean((2, 3))

    found = measure(Net(), (2, 3, 9, 9), TrainingPlan(), repeats=2, warmup=0)
    assert found.between[0].path == "backward"
    assert found.unwatched_backward.low >= NAP
    assert found.row("conv").backward.median < NAP


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputation_is_backwards_time_of_the_same_row(reentrant):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(nn.Conv2d(3, 4, 3), Sleepy())

        def forward(self, x):
            return checkpoint(self.block, x.requires_grad_(), use_reentrant=reentrant).mean((2, 3))

    found = measure(Net(), (2, 3, 9, 9), TrainingPlan(), repeats=2, warmup=0)
    row = found.row("block.1")
    assert row.forward.low >= NAP
    assert row.backward.low >= NAP


def test_backward_flops_hold_the_recomputation():
    found = measure(CheckpointedNet(), (4, 3, 11, 9), TrainingPlan(), repeats=2, warmup=0)
    convolution = found.row("block.0")
    assert convolution.backward_flops == 3 * convolution.forward_flops  # inputs, weights, once more forward
    assert [row.address for row in found.rows].count("block.0#1") == 1


def test_shared_modules_have_a_row_per_call():
    found = measure(SharedNet(), (3, 3, 6, 6), TrainingPlan(), repeats=2, warmup=0)
    assert {"conv#1", "conv#2", "relu#1", "relu#2"} <= {row.address for row in found.rows}
    assert found.row("conv#2").forward.median > 0


def test_the_profiler_finds_the_same_row_dominating():
    """``torch.profiler``'s time per operator, by the shape of its weight, on one large layer of three.

    The fastest of nine runs, and ours by the lower quartile: what else the machine does only adds time.
    """
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 64, 5), nn.Conv2d(64, 2, 1))
    x = torch.randn(4, 3, 64, 64)
    found = measure(net, x, None, repeats=9, warmup=1)
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        for _ in range(9):
            net(x)
    fastest = {}
    for event in profiler.events():
        if event.name == "aten::convolution":
            shape = tuple(event.input_shapes[1])
            fastest[shape] = min(event.cpu_time_total, fastest.get(shape, float("inf")))
    order = sorted(range(3), key=lambda i: -fastest[tuple(net[i].weight.shape)])
    ours = sorted(range(3), key=lambda i: -found.row(str(i)).forward.low)
    assert order[0] == ours[0] == 1
    assert found.row("1").forward.low > sum(found.row(i).forward.low for i in "02")


def test_models_come_back_after_an_exception():
    class Failing(nn.Sequential):
        runs = 0

        def forward(self, x):
            Failing.runs += 1
            y = super().forward(x)
            if Failing.runs > 3:  # the recording is the first, warming up the second and third
                raise ValueError
            return y

    net = Failing(nn.BatchNorm2d(3), nn.ReLU(inplace=True))
    before = state_of(net)
    with pytest.raises(
        ConvscopeError, match=r"a real step on cpu fails in forward \(ValueError: ValueError\)"
    ):
        measure(net, (2, 3, 4, 4), TrainingPlan(), repeats=2, warmup=2)
    assert state_of(net) == before


def test_a_training_step_is_the_default():
    found = measure(nn.Linear(3, 4), (2, 3), repeats=2, warmup=0)
    assert found.plan == "sgd-momentum, fp32"
    assert found.optimizer.median > 0


def test_a_tape_of_another_kind_of_step_is_refused():
    net = nn.Linear(3, 4)
    tape = record(net, (2, 3), None, device="cpu")
    with pytest.raises(ConvscopeError, match="a tape of inference for sgd-momentum"):
        measure(net, (2, 3), tape=tape)
    assert measure(net, (2, 3), None, tape, repeats=2).plan == "inference"


def test_too_few_repeats():
    with pytest.raises(ConvscopeError, match="repeats=1"):
        measure(nn.Identity(), (1, 3), repeats=1)


def test_the_timings_say_where_they_are_from():
    found = measure(nn.Linear(3, 4).double(), (2, 3), None, repeats=2)
    assert found.dtype == "float64"
    assert found.num_threads == torch.get_num_threads()
    assert found.device
    assert found.plan == "inference"
    assert '"flops_per_second"' in found.to_json()
    assert "Linear" in str(found)
