"""The plan's precision and layout, against real models that are converted as users convert them."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cases import ResidualNet, state_of
from convscope.core.errors import ConvscopeError
from convscope.tape import TrainingPlan, record
from convscope.tape.attribution import operator_name


class Volumes(nn.Sequential):
    """Three-dimensional convolutions, one of them grouped."""

    def __init__(self):
        super().__init__(
            nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2),
            nn.Conv3d(8, 16, 3, groups=4, stride=2), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
            nn.Linear(16, 3),
        )  # fmt: skip


class Branches(nn.Module):
    """Branches that are concatenated and added, pooling, upsampling, a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Conv2d(3, 4, 1)
        self.depthwise, self.norm = nn.Conv2d(12, 12, 3, groups=12, padding=1), nn.BatchNorm2d(12)
        self.up = nn.ConvTranspose2d(12, 6, 2, stride=2)

    def forward(self, x):
        joined = torch.cat([self.stem(x), self.wide(x)], 1)
        y = torch.relu(self.norm(self.depthwise(joined))) + joined
        y = nn.functional.max_pool2d(y, 2)
        y = self.up(y) * torch.sigmoid(
            nn.functional.interpolate(nn.functional.avg_pool2d(y, 2), scale_factor=4)[:, :6]
        )
        return y.mean((2, 3))


class Layouts(TorchDispatchMode):
    """Notes each operator's results: shape, and strides along axes that are longer than one."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = operator_name(func)
        if name is not None:
            leaves = result if isinstance(result, tuple | list) else [result]
            self.seen.append(
                (name, [_layout(t.shape, t.stride()) for t in leaves if isinstance(t, torch.Tensor)])
            )
        return result


def _layout(shape, stride):
    return tuple(shape), tuple(step if size > 1 else 0 for size, step in zip(shape, stride, strict=True))


NETWORKS = {
    "residual": (ResidualNet, (4, 3, 17, 13), torch.channels_last),
    "branches": (Branches, (4, 3, 16, 24), torch.channels_last),
    "volumes": (Volumes, (2, 3, 12, 10, 8), torch.channels_last_3d),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_last_goes_through_the_network_as_in_a_real_step(name):
    make, shape, memory_format = NETWORKS[name]
    model = make().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    tape = record(model, shape, TrainingPlan("sgd", channels_last=True, loss=lambda y: y.square().sum()))
    simulated = [
        (
            call.op,
            [_layout(tape.values[v].shape, tape.values[v].stride) for v in call.outputs if v is not None],
        )
        for call in tape.calls
        if call.phase != "optimizer"
    ]
    model.to(memory_format=memory_format)
    inputs = torch.randn(shape).to(memory_format=memory_format)
    with Layouts() as real:
        model(inputs).square().sum().backward()
    assert simulated == real.seen


def test_three_dimensional_convolutions_keep_channels_last_in_half_precision():
    # cuDNN keeps the order in every dtype (ConvUtils.h); the CPU's kernels do in float32 only.
    plan = TrainingPlan(precision="amp-fp16", channels_last=True)
    tape = record(Volumes(), (2, 3, 12, 10, 8), plan)
    convolutions = [tape.values[call.output] for call in tape.calls if call.op == "convolution"]
    assert [value.stride[1] for value in convolutions] == [1, 1]
    gradients = [tape.values[call.outputs[1]] for call in tape.calls if call.op == "convolution_backward"]
    assert [value.stride[1] for value in gradients] == [1, 1]


def test_gradients_lie_as_their_parameters_and_are_not_copied():
    tape = record(ResidualNet(), (4, 3, 17, 13), TrainingPlan(channels_last=True))
    assert "clone" not in {call.op for call in tape.calls}
    strides = {info.name: tape.values[i].stride for i, info in enumerate(tape.parameters)}
    kept = {tape.storages[value.storage].name: value.stride for value in tape.values if
            tape.storages[value.storage].role == "gradient"}  # fmt: skip
    assert kept["conv2.weight"] == strides["conv2.weight"] == (72, 1, 24, 8)
    assert kept["conv1.weight"] == (54, 1, 18, 6)


@pytest.mark.parametrize("inputs", [(4, 3, 17, 13), torch.zeros(4, 3, 17, 13)], ids=["shape", "tensor"])
@pytest.mark.parametrize("real", [False, True])
def test_inputs_and_parameters_lie_channels_last_and_the_model_stays(inputs, real):
    model = ResidualNet()
    before = state_of(model)
    tape = record(model, inputs, TrainingPlan(channels_last=True), real=real)
    assert state_of(model) == before
    assert tape.values[tape.inputs[0]].stride == (663, 1, 39, 3)
    assert next(tape.values[call.inputs[1]] for call in tape.calls if call.op == "convolution").stride == (
        27,
        1,
        9,
        3,
    )


def test_tied_parameters_stay_tied_in_channels_last():
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    model[1].weight = model[0].weight
    tape = record(model, (1, 3, 9, 9), TrainingPlan(channels_last=True))
    assert len({info.storage for info in tape.parameters if info.name.endswith("weight")}) == 1


def test_a_model_in_channels_last_is_recorded_so_in_inference():
    # cuDNN takes the layout of the input or of the weight: a contiguous input is enough.
    model = Branches().to(memory_format=torch.channels_last)
    tape = record(model, (4, 3, 16, 24))
    convolutions = [tape.values[call.output] for call in tape.calls if call.op == "convolution"]
    assert all(value.stride[1] == 1 for value in convolutions)


def test_the_plan_knows_what_autocast_computes_in():
    assert TrainingPlan(precision="amp-fp16").autocast_dtype is torch.float16
    assert TrainingPlan(precision="amp-bf16").autocast_dtype is torch.bfloat16
    assert TrainingPlan().autocast_dtype is TrainingPlan(precision="bf16").autocast_dtype is None


def test_pure_bfloat16_keeps_statistics_in_float32():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.GroupNorm(2, 4),
        nn.LayerNorm(6),
        nn.Flatten(),
        nn.Linear(144, 2),
    )
    tape = record(model, (4, 3, 8, 8), TrainingPlan(precision="bf16"))
    for name in ("batch_norm", "group_norm", "layer_norm"):
        (call,) = (call for call in tape.calls if call.op == name)
        dtypes = [tape.values[output].dtype for output in call.outputs]
        assert dtypes == [torch.bfloat16, torch.float32, torch.float32]


@pytest.mark.parametrize("precision", ["fp16", "amp", "AMP-FP16", None])
def test_unknown_precisions_are_refused(precision):
    with pytest.raises(ConvscopeError, match="amp-fp16"):
        TrainingPlan(precision=precision)


def test_the_cpu_has_its_own_autocast():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm(6))
    plan = TrainingPlan(precision="amp-bf16", loss=lambda y: y.float().sum())
    for device, dtype in (("cuda", torch.float32), ("cpu", torch.bfloat16)):
        tape = record(model, (4, 3, 8, 8), plan, device=device)
        (call,) = (call for call in tape.calls if call.op == "layer_norm")
        assert tape.values[call.output].dtype is dtype


def test_a_real_step_in_mixed_precision_has_the_simulated_ones_operators():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    plan = TrainingPlan(precision="amp-bf16")
    simulated, real = (record(model, (4, 3, 8, 8), plan, real=real) for real in (False, True))
    assert [call.op for call in simulated.calls] == [call.op for call in real.calls]
    matching = [call for call in real.calls if call.op in ("convolution", "addmm")]
    assert {real.values[call.output].dtype for call in matching} == {torch.bfloat16}
