"""The CPU's memory by hand, and the forecast against it, to the byte."""

import os

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import zoo
from cases import CASES, CheckpointedNet, state_of
from convscope.core.errors import ConvscopeError
from convscope.cost.measured.cpu_truth import measure
from convscope.cost.memory.forecast import forecast
from convscope.tape import TrainingPlan, record

MIB = 2**20
PLANS = {
    "inference": None,
    "sgd": TrainingPlan("sgd", foreach=False),
    "momentum": TrainingPlan("sgd-momentum", foreach=False),
    "momentum foreach": TrainingPlan("sgd-momentum"),
    "adamw": TrainingPlan("adamw", foreach=False),
    "adamw foreach": TrainingPlan("adamw"),
}
FEW = {name: PLANS[name] for name in ("inference", "momentum", "adamw foreach")}
SMALL = ["torchvision:squeezenet1_1", pytest.param("timm:regnetx_002", marks=pytest.mark.slow)]
MORE = [
    "torchvision:resnet18",
    "torchvision:alexnet", "torchvision:convnext_tiny", "torchvision:densenet121", "torchvision:googlenet",
    "torchvision:mobilenet_v3_small", "torchvision:shufflenet_v2_x0_5", "timm:convmixer_768_32",
    "timm:cspresnet50", "timm:dpn48b", "timm:efficientnet_lite0", "timm:gcresnet33ts", "timm:ghostnetv3_050",
    "timm:hrnet_w18_small", "timm:mixnet_s", "timm:mobilevit_xxs", "timm:nextvit_small",
    "timm:res2net50_14w_8s", "timm:resnetv2_50d", "timm:skresnet18", "timm:test_maxvit",
]  # fmt: skip

# What is unlike in the sample's operators, without the two slowest, and what has layer norms and attention.
BRIEF = [
    *(each for each in zoo.BRIEF if each not in ("timm:convmixer_768_32", "timm:hrnet_w18_small")),
    "torchvision:convnext_tiny", "timm:test_maxvit",
]  # fmt: skip

OPTIONS = [
    {"precision": "bf16"}, {"channels_last": True}, {"optimizer": "adamw", "foreach": "fused"},
    {"optimizer": "adam", "zero_grad_set_to_none": False}, {"optimizer": "adamw", "clip_grad_norm": 1.0},
    {"optimizer": "rmsprop", "foreach": False}, {"optimizer": "rmsprop"},
]  # fmt: skip


class Scratch(nn.Module):
    """Makes and drops blocks of known sizes: 1 MiB is 2^18 floats."""

    def forward(self, x):
        a = torch.empty(3 * MIB // 4)
        b = torch.empty(2 * MIB // 4)
        del a
        c = torch.empty(4 * MIB // 4)
        del b
        return c, torch.empty(MIB // 4)


def test_a_run_of_blocks_by_hand():
    x = torch.zeros(MIB // 4)
    found = measure(Scratch(), x, None)
    assert found.peak_bytes == (1 + 2 + 4) * MIB  # the input, b and c
    assert found.standing_bytes == 1 * MIB
    assert found.inside_operators == {}
    assert (found.peak_phase, found.peak_op) == ("forward", "")  # no operator but a factory


def test_a_training_step_by_hand():
    """A linear layer 300 → 200 without bias, batch 50, a sum for loss, SGD with momentum."""
    weight, x, y, scalar, number = 4 * 300 * 200, 4 * 50 * 300, 4 * 50 * 200, 4, 8
    net = nn.Linear(300, 200, bias=False)
    plan = TrainingPlan("sgd-momentum", foreach=False, loss=lambda outputs: outputs.sum())
    found = measure(net, (50, 300), plan)
    standing = weight + x + weight  # the weight, the input, the momentum
    assert found.standing_bytes == standing + weight  # and the gradient of the step before
    assert found.phase_peaks["forward"] == standing + y
    assert found.phase_peaks["loss"] == standing + y + scalar
    # The loss's gradient, and the weight's: a product that copies the expanded scalar inside itself.
    assert found.phase_peaks["backward"] == standing + y + 2 * scalar + weight + y
    assert found.inside_operators == {"mm": y}
    # The optimizer multiplies by 0.9, which PyTorch wraps in a tensor of 8 bytes; outputs live till the end.
    assert found.tensor_peak_bytes == standing + y + scalar + weight + number
    assert found.first_peak_bytes == standing + y + scalar + weight


def test_blocks_inside_an_operator_are_told_apart():
    """Converting a layout inside one operator: ``cdist`` at p=2 multiplies and throws its factors away."""
    found = measure(_Square(), (64, 1000), None)
    assert found.tensor_peak_bytes == 4 * 64 * 1000 + 4 * 64 * 64
    assert found.peak_bytes > found.tensor_peak_bytes
    assert sum(found.inside_operators.values()) == found.peak_bytes - found.tensor_peak_bytes


class _Square(nn.Module):
    def forward(self, x):
        return torch.cdist(x, x, compute_mode="use_mm_for_euclid_dist")


class _Branches(nn.Module):
    """A residual sum, whose gradients meet again in backward, where the peak lies."""

    def __init__(self):
        super().__init__()
        self.first, self.left, self.right = (nn.Conv2d(8, 8, 1) for _ in range(3))

    def forward(self, x):
        y = self.first(x)
        return (self.left(y).sigmoid() + self.right(y).tanh() + y.exp()).mean((2, 3))


@pytest.mark.parametrize("plan", FEW.values(), ids=FEW)
@pytest.mark.parametrize("make", [_Branches, *(case.make for case in CASES[:3])])
def test_the_forecast_of_tensors_is_exact(make, plan):
    shapes = {case.make: case.shape for case in CASES}
    net, shape = make(), shapes.get(make, (2, 8, 30, 30))
    before = state_of(net)
    assert_exact(net, shape, plan)
    assert state_of(net) == before


@pytest.mark.parametrize("reference", SMALL)
def test_the_forecast_of_tensors_is_exact_in_real_networks(reference):
    net, shape = zoo.make(reference)
    for plan in (None, PLANS["momentum"]):
        assert_exact(net, shape, plan)


@pytest.mark.slow
@pytest.mark.parametrize("change", OPTIONS, ids=str)
def test_the_forecast_of_tensors_is_exact_with_every_option(change):
    net, shape = zoo.make("timm:regnetx_002")
    assert_exact(net, shape, TrainingPlan(**change))


@pytest.mark.parametrize("reference", zoo.staged(MORE, BRIEF))
def test_the_forecast_of_tensors_is_exact_in_more_networks(reference):
    net, shape = zoo.make(reference)
    for plan in FEW.values():
        assert_exact(net, shape, plan)


def assert_exact(net, shape, plan):
    """Live tensors to the byte; the rest of the peak is blocks inside operators."""
    expected, found = forecast(record(net, shape, plan, device="cpu")), measure(net, shape, plan)
    # Numbers that PyTorch wraps, 8 bytes each, come and go with the operators that read them.
    assert abs(expected.allocated_peak_bytes - found.tensor_peak_bytes) <= 16
    assert found.tensor_peak_bytes <= found.peak_bytes


def test_memory_before_and_after_doesnt_count():
    held = torch.empty(MIB)
    first = measure(nn.ReLU(), (2, 3, 4, 5), None)
    del held
    assert measure(nn.ReLU(), (2, 3, 4, 5), None) == first
    assert first.peak_bytes == 2 * 4 * 2 * 3 * 4 * 5


def test_a_training_step_is_the_default():
    net = nn.Linear(300, 200)
    assert measure(net, (50, 300)).phase_peaks.keys() == {"forward", "loss", "backward", "optimizer"}


def test_the_profilers_notes_dont_reach_standard_error(capfd):
    measure(nn.ReLU(), (2, 3), None)
    assert capfd.readouterr().err == ""


def test_standard_error_is_the_users_own(capfd):
    """Also what is written from C++, past Python, while the step runs, and after one that fails."""

    class Talking(nn.Module):
        def forward(self, x):
            os.write(2, b"own words\n")
            if x.shape[0] == 5:
                raise ValueError
            return x

    measure(Talking(), (2, 3), None)
    assert capfd.readouterr().err == 3 * "own words\n"
    with pytest.raises(ConvscopeError):
        measure(Talking(), (5, 3), None)
    assert capfd.readouterr().err == "own words\n"
    os.write(2, b"and after\n")
    assert capfd.readouterr().err == "and after\n"


def test_checkpoints_keep_the_generators_state():
    """What the recording lacks: the state of the random number generator, 5,056 bytes, which a checkpoint
    keeps for the second run, and again during it."""
    state = torch.get_rng_state().nbytes
    for plan in (None, PLANS["sgd"]):
        net, shape = CheckpointedNet(), (4, 3, 11, 9)
        expected, found = forecast(record(net, shape, plan, device="cpu")), measure(net, shape, plan)
        left = found.tensor_peak_bytes - expected.allocated_peak_bytes
        assert left in (state, 2 * state)


def test_checkpointing_lowers_it():
    class Deep(nn.Module):
        def __init__(self, again):
            super().__init__()
            self.again = again
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            for _ in range(3):
                x = checkpoint(self.block, x, use_reentrant=False) if self.again else self.block(x)
            return x

        def block(self, y):
            for _ in range(6):
                y = (y * self.scale).sin()
            return y

    plan = TrainingPlan("sgd", loss=lambda outputs: outputs.mean())
    plain, again = (measure(Deep(flag), (1000, 50), plan).tensor_peak_bytes for flag in (False, True))
    # Two maps kept per round of each block, against one block's at a time and the blocks' inputs.
    maps = 4 * 1000 * 50
    assert plain > 2 * 18 * maps > again
