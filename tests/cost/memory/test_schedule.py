"""When blocks are taken and given back, against PyTorch's own order and small steps followed by hand."""

import pytest
from torch import nn

from cases import NestedNet
from convscope.cost.memory.schedule import schedule_of, sizes_of
from convscope.tape import TrainingPlan, record


def names(tape, blocks):
    return [f"{tape.storages[block].role}:{tape.storages[block].name}" for block in blocks]


def test_states_are_made_in_the_first_step_only():
    """Adam's two states per parameter, and its counters stay in host memory."""
    tape = record(nn.Linear(8, 4), (2, 8), TrainingPlan("adam"))
    schedule = schedule_of(tape)
    states = [s.index for s in tape.storages if s.role == "optimizer-state"]
    assert not set(states) & set(schedule.standing)
    made = {call: [b for b in events if b in states] for call, events in enumerate(schedule.first)}
    calls = [call for call, blocks in made.items() if blocks]
    assert len(calls) == 1
    assert tape.calls[calls[0]].phase == "optimizer"
    assert made[calls[0]] == states  # weight's step, exp_avg, exp_avg_sq; then the bias's
    assert [schedule.sizes[block] for block in states] == [0, 128, 128, 0, 16, 16]
    assert not any(b in states for events in schedule.steady for b in events)


def test_gradients_and_results_go_before_the_next_step():
    tape = record(nn.Linear(8, 4, bias=False), (2, 8), TrainingPlan("sgd"))
    schedule = schedule_of(tape)
    gone = names(tape, schedule.before)
    assert "gradient:weight" in gone
    result = tape.values[tape.outputs[0]].storage
    assert result in schedule.before


def test_kept_gradients_meet_a_second_block_in_backward():
    """The first step makes the gradient; later ones make what is added to it, which goes at once."""
    plan = TrainingPlan("sgd", zero_grad_set_to_none=False)
    tape = record(nn.Linear(8, 4, bias=False), (2, 8), plan)
    schedule = schedule_of(tape)
    (gradient,) = [s.index for s in tape.storages if s.role == "gradient"]
    double = schedule.num_storages
    assert schedule.sizes[double] == schedule.sizes[gradient] == 8 * 4 * 4
    first, steady = [b for e in schedule.first for b in e], [b for e in schedule.steady for b in e]
    assert gradient in first
    assert gradient not in steady
    assert double not in first
    assert steady.index(double) < steady.index(~double)
    assert gradient not in schedule.before
    maker = next(call for call, events in enumerate(schedule.steady) if double in events)
    assert tape.calls[maker].op == "mm"


def test_every_block_that_a_step_takes_is_given_back_or_known():
    tape = record(NestedNet(), (3, 2, 4, 4), TrainingPlan("adamw", clip_grad_norm=1.0))
    schedule = schedule_of(tape)
    alive = set()
    for events in schedule.steady:
        for block in events:
            if block >= 0:
                assert block not in alive
                alive.add(block)
            else:
                alive.remove(~block)
    assert alive == set(schedule.before)


def test_kernels_are_one_forward_and_two_backward():
    """The first layer needs no gradient of its images."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3))
    assert schedule_of(record(net, (2, 3, 8, 8), TrainingPlan("sgd"))).kernels == 2 + 1 + 2
    assert schedule_of(record(net, (2, 3, 8, 8))).kernels == 2
    assert schedule_of(record(net, (2, 3, 8, 8), TrainingPlan("sgd"), device="cpu")).kernels == 0


def test_matrix_products_in_both_threads():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 10))
    tape = record(net, (2, 3, 8, 8), TrainingPlan("sgd"))
    first, linear, behind = schedule_of(tape).products
    assert tape.calls[first].op == "addmm"
    assert first == linear
    assert (tape.calls[behind].op, tape.calls[behind].phase) == ("mm", "backward")
    assert schedule_of(record(nn.Conv2d(3, 4, 3), (2, 3, 8, 8), TrainingPlan("sgd"))).products == (None,) * 3


@pytest.mark.parametrize("batch", [3, 7])
def test_sizes_of_another_batch_fit_the_same_schedule(batch):
    plan = TrainingPlan("adamw")
    schedule = schedule_of(record(NestedNet(), (2, 2, 4, 4), plan))
    other = record(NestedNet(), (batch, 2, 4, 4), plan)
    assert len(sizes_of(other)) == len(schedule.sizes)
    assert sizes_of(other) == schedule_of(other).sizes
    assert schedule_of(other).steady == schedule.steady
