"""Training processes run through the allocator, against counts by hand."""

import pytest
import torch
from torch import nn

from convscope.cost.allocator.caching import AllocatorConfig
from convscope.cost.memory.replay import alive_at, block_sizes, plain_bytes, replay
from convscope.cost.memory.schedule import schedule_of
from convscope.cost.memory.workspace import Workspace
from convscope.tape import TrainingPlan, record

MIB = 2**20


def summed(out):
    return out.sum()


def fifty_mib_step():
    """1×1 convolution, ReLU in place, sum: maps of 49 MiB, each in a block of 50 MiB.

    A segment of 50 MiB leaves 1 MiB over, which isn't split off: more than 1 MiB would be.
    """
    net = nn.Sequential(nn.Conv2d(64, 64, 1, bias=False), nn.ReLU(inplace=True))
    return record(net, (16, 64, 112, 112), TrainingPlan("sgd", loss=summed))


def test_every_block_by_hand_with_unsplit_remainders():
    tape = fifty_mib_step()
    found = replay(schedule_of(tape))
    weight, scalar = 64 * 64 * 4, 512
    # At the convolution's backward: images, map, its gradient; weight, its gradient; the loss, and the one
    # that backward starts from, which its caller holds.
    assert found.allocated_peak_bytes == 3 * 50 * MIB + 2 * weight + 2 * scalar
    assert tape.calls[found.peak_call].op == "convolution_backward"
    assert found.reserved_peak_bytes == 3 * 50 * MIB + 2 * MIB
    assert found.first_step_allocated_peak_bytes == found.allocated_peak_bytes
    forward = next(call.index for call in tape.calls if call.op == "convolution")
    assert found.allocated_by_call[forward] == 2 * 50 * MIB + weight


def test_with_expandable_segments_nothing_is_left_unsplit():
    found = replay(schedule_of(fifty_mib_step()), config=AllocatorConfig(expandable_segments=True))
    assert found.allocated_peak_bytes == 3 * 49 * MIB + 2 * 64 * 64 * 4 + 2 * 512
    assert found.reserved_peak_bytes == 160 * MIB + 2 * MIB  # pages of 20 MiB for 147 MiB


def test_a_device_that_is_too_small_says_where_it_was_full():
    schedule = schedule_of(fifty_mib_step())
    assert replay(schedule, capacity=152 * MIB).full is None
    full = replay(schedule, capacity=151 * MIB).full
    assert full is not None
    assert full.nbytes == 49 * MIB
    assert full.allocated == 2 * 50 * MIB + 64 * 64 * 4 + 2 * 512  # the loss and the gradient that starts
    assert full.reserved == 102 * MIB


def test_the_optimizers_states_come_in_the_first_step():
    """A linear layer of 4 MiB, Adam: two states, and a square root while it steps."""
    tape = record(nn.Linear(1024, 1024, bias=False), (4, 1024), TrainingPlan("adam", loss=summed))
    found = replay(schedule_of(tape))
    small = 2 * 4 * 4096  # images and result; the loss and the like are smaller than what is counted exactly
    peak = found.allocated_peak_bytes
    # weight, gradient, exp_avg, exp_avg_sq, and the square root of exp_avg_sq
    assert 5 * 4 * MIB < peak <= 5 * 4 * MIB + small + 4 * 512
    assert found.first_step_allocated_peak_bytes == peak
    backward = next(c.index for c in tape.calls if c.phase == "backward")
    assert found.allocated_by_call[backward] > 3 * 4 * MIB


def test_cublas_workspaces_stay_from_the_first_product_on():
    """One per thread: that of the caller, and that of backward. Both fit a segment of 20 MiB."""
    tape = record(nn.Linear(64, 64, bias=False), (8, 64), TrainingPlan("sgd", loss=summed))
    schedule = schedule_of(tape)
    without = replay(schedule)
    found = replay(schedule, workspace=Workspace(cublas_bytes=8_519_680))
    assert found.allocated_peak_bytes == without.allocated_peak_bytes + 2 * 8_519_680
    assert found.reserved_peak_bytes == without.reserved_peak_bytes + 20 * MIB
    inference = schedule_of(record(nn.Linear(64, 64, bias=False), (8, 64)))
    alone = replay(inference, workspace=Workspace(cublas_bytes=8_519_680))
    assert alone.allocated_peak_bytes == replay(inference).allocated_peak_bytes + 8_519_680


def test_plain_sums_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    tape = record(net, (2, 3, 9, 9), TrainingPlan("sgd", loss=summed), device="cpu")
    schedule = schedule_of(tape)
    highs = plain_bytes(schedule, block_sizes(schedule, Workspace()))
    x, first, second = 2 * 3 * 81 * 4, 2 * 4 * 49 * 4, 2 * 2 * 25 * 4
    parameters = sum(p.numel() * 4 for p in net.parameters())
    ops = [call.op for call in tape.calls]
    assert highs[ops.index("relu")] == parameters + x + 2 * first
    # The first convolution's result is gone: the ReLU keeps its own.
    after = [i for i, op in enumerate(ops) if op == "convolution"][1]
    assert highs[after] == parameters + x + first + second


def test_what_is_alive_adds_up_to_the_plain_sum():
    tape = record(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)),
        (4, 3, 8, 8), TrainingPlan("adamw"),
    )  # fmt: skip
    schedule = schedule_of(tape)
    sizes = block_sizes(schedule, Workspace(cublas_bytes=1000))
    for call, high in enumerate(plain_bytes(schedule, sizes)):
        alive = alive_at(schedule, call, sizes)
        assert sum(sizes[block] for kind in alive for block in kind) == high


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_number_of_steps_measured_can_be_chosen(steps):
    schedule = schedule_of(fifty_mib_step())
    assert replay(schedule, num_steps=steps).allocated_peak_bytes == 3 * 50 * MIB + 2 * 16384 + 2 * 512


def test_a_network_without_operators_takes_what_is_loaded():
    tape = record(nn.Identity(), torch.empty(100))
    found = replay(schedule_of(tape))
    assert (found.allocated_peak_bytes, found.reserved_peak_bytes) == (512, 2 * MIB)
    assert found.peak_call is None
