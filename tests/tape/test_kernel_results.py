"""What kernels return in another form than a simulation, against real steps on the CPU."""

import pytest
import torch
from torch import nn

from convscope.tape import TrainingPlan, record

IMAGES = {
    "batch norm": lambda: nn.BatchNorm2d(4),
    "frozen batch norm": lambda: nn.BatchNorm2d(4).eval(),
    "batch norm without parameters": lambda: nn.BatchNorm2d(4, affine=False),
    "batch norm without running statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "bare batch norm": lambda: nn.BatchNorm2d(4, affine=False, track_running_stats=False),
    "instance norm": lambda: nn.InstanceNorm2d(4),
    "group norm": lambda: nn.GroupNorm(2, 4),
    "bare group norm": lambda: nn.GroupNorm(2, 4, affine=False),
    "layer norm": lambda: nn.LayerNorm(4),
    "bare layer norm": lambda: nn.LayerNorm(4, elementwise_affine=False),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "amp-bf16", "amp-fp16"])
@pytest.mark.parametrize("name", IMAGES)
def test_norms_on_the_cpu_return_what_they_do_in_a_real_step(name, precision):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), IMAGES[name]())
    plan = TrainingPlan("sgd", precision, loss=lambda y: y.float().sum())
    forms = [
        [
            (call.op, [None if value is None else tape.values[value] for value in call.outputs])
            for call in tape.calls
            if "norm" in call.op
        ]
        for tape in (record(network, (2, 3, 6, 6), plan, device="cpu", real=real) for real in (False, True))
    ]
    simulated, real = (
        [(op, [value and (value.shape, value.dtype) for value in values]) for op, values in calls]
        for calls in forms
    )
    assert simulated == real
    assert {op.removesuffix("_backward") for op, _ in real} == {op for op, _ in real if "back" not in op}


@pytest.mark.parametrize("name", IMAGES)
def test_norms_on_cuda_keep_statistics_in_single_precision(name):
    # ATen/native/cuda: Normalization.cu, group_norm_kernel.cu and layer_norm_kernel.cu accumulate in float32.
    network = nn.Sequential(nn.Conv2d(3, 4, 3), IMAGES[name]())
    tape = record(network, (2, 3, 6, 6), TrainingPlan("sgd", "bf16", loss=lambda y: y.float().sum()))
    (call,) = (call for call in tape.in_phase("forward") if call.op.endswith("_norm"))
    dtypes = [tape.values[value].dtype for value in call.outputs if value is not None]
    assert dtypes == [torch.bfloat16, torch.float32, torch.float32]
