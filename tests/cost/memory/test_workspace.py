"""Bounds on libraries' scratch memory, against published figures of PyTorch's users and counts by hand."""

import pytest
import torch
from torch import nn

from convscope.cost.memory.constants import gpu_figures
from convscope.cost.memory.forecast import forecast
from convscope.cost.memory.replay import replay
from convscope.cost.memory.schedule import schedule_of
from convscope.cost.memory.workspace import Workspace, workspaces
from convscope.tape import TrainingPlan, record

GIB, MIB = 2**30, 2**20


def half(shape):
    return torch.empty(shape, dtype=torch.float16, device="meta")


def on_meta(make, *args, **kwargs):
    with torch.device("meta"):
        return make(*args, **kwargs).half()


def high_of(tape, gpu="a100"):
    return workspaces(tape, gpu_figures(gpu))[1].convolution_bytes


def test_issue_95024_to_the_byte():
    """Conv3d of 64 to 32 channels in float16 on an A100: max_memory_allocated was 12.874233344 GB.

    The kernel rewrites input, weight and output to another layout: pytorch issue 95024, with x_dim 361.
    """
    tape = record(on_meta(nn.Conv3d, 64, 32, 3, padding=1), half((1, 64, 361, 370, 251)))
    x = 64 * 361 * 370 * 251 * 2
    rewritten = x + x // 2 + 32 * 64 * 27 * 2
    found = replay(schedule_of(tape), workspace=Workspace(convolution_bytes=(rewritten,)))
    assert found.first_step_allocated_peak_bytes == 12_874_233_344
    low, high = forecast(tape, gpu="a100").allocated_range_bytes
    assert low < 12_874_233_344 <= high


@pytest.mark.parametrize(("width", "reserved"), [(1024, 4.02), (1152, 5.52), (1280, 6.15), (2048, 9.90)])
def test_issue_123533(width, reserved):
    """Conv2d of 256 channels, 3×3, in float16: reserved memory in GiB after it (pytorch issue 123533)."""
    tape = record(on_meta(nn.Conv2d, 256, 256, 3, padding=1), half((1, 256, 2048, width)))
    low, high = workspaces(tape, gpu_figures("a100"))
    found = [replay(schedule_of(tape), workspace=end).first_step_reserved_peak_bytes for end in (low, high)]
    assert found[0] <= reserved * GIB <= found[1]


def test_issue_31500():
    """One channel in float16 is padded to eight: "Tried to allocate 48.01 GiB" (pytorch issue 31500)."""
    tape = record(on_meta(nn.ConvTranspose2d, 1, 1, 1, 1, bias=False), half((1024, 1, 1024, 1024)))
    assert high_of(tape, "v100")[0] == pytest.approx(48.01 * GIB, rel=3e-4)


def test_winograd_and_split_sums_by_hand():
    """8 images of 16 channels, 10×10, 3×3 to 32 channels, in float32."""
    tape = record(nn.Conv2d(16, 32, 3, padding=1, bias=False), (8, 16, 10, 10), TrainingPlan("sgd"))
    tiles = 8 * 3 * 3  # 4×4 results each: 10 need three
    transformed = 36 * 4 * (tiles * (16 + 32) + 32 * 16)
    layout = 4 * (8 * 16 * 100 + 8 * 32 * 100 + 32 * 16 * 9)
    assert transformed > layout
    split = 2 * 132 * 128 * 256 * 4  # two blocks on each of an H100's multiprocessors
    assert high_of(tape, "h100") == (transformed, split)  # no gradient of the images: no kernel for it


def test_channels_last_in_full_vectors_needs_no_other_layout():
    """1×1 in float16: 64 channels are whole vectors of 16 B, 3 are padded to 8."""

    def high(channels):
        x = half((2, channels, 8, 8)).to(memory_format=torch.channels_last)
        conv = on_meta(nn.Conv2d, channels, 64, 1, bias=False).to(memory_format=torch.channels_last)
        return high_of(record(conv, x))[0]

    assert high(64) == 0
    # The images' and the weight's channels are padded; the result has whole vectors.
    assert high(3) == 2 * 8 * 64 * 2 + 64 * 8 * 2


def test_pytorchs_own_depthwise_kernel_takes_nothing():
    tape = record(nn.Conv2d(8, 8, 3, groups=8, padding=1), (2, 8, 8, 8), TrainingPlan("sgd"))
    assert high_of(tape) == ()


def test_cpu_tapes_have_none():
    tape = record(nn.Conv2d(3, 8, 3), (2, 3, 8, 8), device="cpu")
    assert workspaces(tape, gpu_figures("t4")) == (Workspace(), Workspace())


def test_a_workspace_that_does_not_fit_is_left_out():
    """PyTorch tries the next kernel then, so the step runs."""
    tape = record(nn.Conv2d(16, 16, 3, padding=1), (4, 16, 64, 64))
    schedule = schedule_of(tape)
    huge = Workspace(convolution_bytes=(10 * GIB,))
    assert replay(schedule, workspace=huge).allocated_peak_bytes > 10 * GIB
    capped = replay(schedule, workspace=huge, capacity=GIB)
    assert capped.full is None
    assert capped.allocated_peak_bytes == replay(schedule).allocated_peak_bytes
