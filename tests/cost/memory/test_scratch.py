"""What operators take inside themselves, against PyTorch's own idea of memory formats."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._prims_common import suggest_memory_format
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from convscope.cost.memory.schedule import schedule_of
from convscope.cost.memory.scratch import is_channels_last, is_contiguous, passings
from convscope.norm.engine import kernels, operator, reductions
from convscope.norm.engine.statistics import moments
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


class _Large(TorchDispatchMode):
    """Notes new storages as large as the statistics' copy of the input, by operator of the engine."""

    def __init__(self, least):
        super().__init__()
        self.least, self.seen = least, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {t.untyped_storage().data_ptr() for t in tree_iter(args) if isinstance(t, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        storage = out.untyped_storage() if isinstance(out, torch.Tensor) else None
        if storage is not None and storage.nbytes() >= self.least and storage.data_ptr() not in given:
            self.seen.append(out)
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (16, 9, 7)], ids=["batch", "layer"])
def test_scratch_of_own_norms_is_what_their_kernels_take_at_once(dtype, with_mask, shape):
    """Counted in the kernels themselves on the CPU, where a block may be as large as on an accelerator."""
    dims = (0, 2, 3) if len(shape) == 4 else (2,)
    affine = (1, 3, 1, 1) if len(shape) == 4 else (1, 1, 7)
    x, dy = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    weight, bias = torch.rand(affine), torch.rand(affine)
    mask = torch.rand((shape[0], 1, *shape[2:])) > 0.5 if with_mask else None

    class Net(nn.Module):
        def forward(self, x):
            found = operator.moments(x, mask, dims)
            y = operator.normalised(x, weight, bias, mask, found[:3], 1e-5)
            operator.sums(dy, x, weight, mask, found[:3], dims)
            return y + operator.gradient(dy, x, weight, mask, (*found[:3], found.shift))

    tape = record(Net(), x)
    forecast = {
        call.op: sum(len(passing.copies) for passing in passings(tape, call))
        for call in tape.calls
        if call.op.startswith("convscope")
    }
    found = moments(x, dims, mask)
    statistics = found[:3]
    with _Large(4 * x.numel()) as sizes:
        counted, kernels_run = (
            {},
            {
                "convscope_moments": lambda: moments(x, dims, mask),
                "convscope_normalise": lambda: kernels.normalised(x, weight, bias, mask, statistics, 1e-5),
                "convscope_normalise_sums": lambda: reductions.sums(dy, x, weight, mask, statistics, dims),
                "convscope_normalise_backward": lambda: kernels.gradient(
                    dy, x, weight, mask, (*statistics, found.shift)
                ),
            },
        )
        for name, run in kernels_run.items():
            sizes.seen.clear()
            result = run()
            kept = isinstance(result, torch.Tensor) and result.dtype == torch.float32
            counted[name] = len({t.untyped_storage().data_ptr() for t in sizes.seen}) - kept
    assert forecast == counted
