"""What operators take inside themselves, against PyTorch's own idea of memory formats."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._prims_common import suggest_memory_format

from convscope.cost.memory.schedule import schedule_of
from convscope.cost.memory.scratch import is_channels_last, is_contiguous, passings
from convscope.tape import TrainingPlan, Value, record

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def _value(tensor):
    return Value(0, 0, tuple(tensor.shape), tuple(tensor.stride()), 0, tensor.dtype, 0, None)


@st.composite
def _tensors(draw):
    """Tensors of 3 to 5 axes, permuted, sliced or spread out."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=3, max_size=5))
    tensor = torch.empty(sizes, device="meta")
    if draw(st.booleans()):
        tensor = tensor.permute(draw(st.permutations(range(len(sizes)))))
    if draw(st.booleans()):
        tensor = tensor[:, : draw(st.integers(1, 3))]
    if draw(st.booleans()):
        tensor = tensor.sum(1, keepdim=True).expand(-1, draw(st.integers(1, 3)), *tensor.shape[2:])
    return tensor


@given(_tensors())
def test_memory_formats_are_pytorchs(tensor):
    value = _value(tensor)
    assert is_channels_last(value) == (suggest_memory_format(tensor) in FORMATS.values())
    assert is_contiguous(value, channels_last=False) == tensor.is_contiguous()
    if tensor.dim() in FORMATS:
        expected = tensor.is_contiguous(memory_format=FORMATS[tensor.dim()])
        assert is_contiguous(value, channels_last=True) == expected


def test_operands_in_another_layout_are_copied_inside_a_convolution():
    """A channels-last image and a contiguous weight: the weight is copied, and in backward the gradient."""
    x = torch.empty(2, 4, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    plan = TrainingPlan("sgd", loss=lambda out: out.sum())
    tape = record(nn.Conv2d(4, 8, 3, bias=False), x, plan)
    schedule = schedule_of(tape)
    weight, gradient = 8 * 4 * 9 * 4, 2 * 8 * 4 * 4 * 4
    copies = schedule.sizes[schedule.num_storages :]
    # Forward: the weight. Gradient of the images: the loss's gradient, one number spread out, and the weight.
    # Gradient of the weight: the loss's gradient once more.
    assert copies == (weight, gradient, weight, gradient)


def test_convolutions_in_one_layout_copy_nothing():
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    for plan in (TrainingPlan("sgd"), TrainingPlan("sgd", channels_last=True)):
        schedule = schedule_of(record(net, (2, 4, 6, 6), plan))
        assert len(schedule.sizes) == schedule.num_storages


def test_batch_norms_backward_copies_a_gradient_in_another_layout():
    """The summed loss's gradient is one number spread out; cuDNN's batch norm reads whole tensors."""
    plan = TrainingPlan("sgd", loss=lambda out: out.sum())
    tape = record(nn.BatchNorm2d(4), (2, 4, 6, 6), plan)
    (call,) = [call for call in tape.calls if call.op == "batch_norm_backward"]
    (passing,) = passings(tape, call)
    assert passing.copies == (2 * 4 * 6 * 6 * 4,)


@pytest.mark.parametrize(("groups", "kernels"), [(1, 1), (4, 0), (2, 1)])
def test_which_convolutions_run_cudnn(groups, kernels):
    tape = record(nn.Conv2d(4, 8, 3, groups=groups), (2, 4, 6, 6))
    assert schedule_of(tape).kernels == kernels
