"""Every batch norm call of a run as y = s · x + t: numbers against PyTorch's own, and what is none."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.fold.norms.units import Unfit, not_called, units_of
from convscope.fold.recorded.constants import Constants
from convscope.fold.recorded.flow import Flow
from convscope.tape import record
from fold.nets import Functional

IMAGE = (2, 3, 5, 4)


def units(net, shape=IMAGE):
    flow = Flow(record(net, shape, device="cpu"), net)
    return units_of(flow, Constants(flow)), flow


class Frozen(nn.Module):
    """A batch norm by hand, as detection networks have it."""

    def __init__(self, order):
        super().__init__()
        self.order = order
        for name, tensor in (("weight", torch.randn(3)), ("bias", torch.randn(3))):
            self.register_buffer(name, tensor)
        self.register_buffer("running_mean", torch.randn(3))
        self.register_buffer("running_var", torch.rand(3) + 0.3)

    def forward(self, x):
        w, b, m, v = (
            t.reshape(1, -1, 1, 1) for t in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        scale = w * (v + 1e-5).rsqrt()
        match self.order:
            case "folded first":
                return x * scale + (b - m * scale)
            case "step by step":
                return (x - m) / (v + 1e-5).sqrt() * w + b
            case "in place":
                return x.sub(m).mul_(scale).add_(b)
            case "constants on the left":
                return b + scale * (x - m)
            case "alpha":
                return torch.add(b, scale * torch.sub(x, m / 2, alpha=2), alpha=1)


class Wrapped(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


NORMS = {
    "BatchNorm1d of rows": (lambda: nn.BatchNorm1d(3), (4, 3)),
    "BatchNorm1d of sequences": (lambda: nn.BatchNorm1d(3), (3, 3, 3)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(3, eps=0.2), IMAGE),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(3), (2, 3, 2, 3, 2)),
    "affine=False": (lambda: nn.BatchNorm2d(3, affine=False), IMAGE),
    "SyncBatchNorm": (lambda: nn.SyncBatchNorm(3), IMAGE),
    "InstanceNorm2d by running statistics": (
        lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), (1, 3, 5, 4)
    ),
    **{f"frozen, {order}": (lambda order=order: Frozen(order), IMAGE) for order in (
        "folded first", "step by step", "in place", "constants on the left"
    )},
}  # fmt: skip


@pytest.mark.parametrize("name", NORMS)
def test_scale_and_shift(name, randomised):
    make, shape = NORMS[name]
    net = nn.Sequential(nn.Identity(), make())
    net = (net.eval() if "frozen" in name else randomised(net)).double()
    (unit,), flow = units(net, shape)
    x = torch.randn(shape, dtype=torch.float64)
    given = torch.from_numpy(np.asarray(unit.scale)) * x + torch.from_numpy(np.asarray(unit.shift))
    assert torch.allclose(given, net(x), rtol=0, atol=1e-12)
    assert unit.address == "1#1"
    assert unit.buffers == "1"
    assert (unit.before, unit.after) == (flow.tape.inputs[0], flow.tape.outputs[0])


def broken(**numbers):
    def make():
        norm = nn.BatchNorm2d(3)
        for name, number in numbers.items():
            getattr(norm, name).data[1] = number
        return norm

    return make


ANEW = "measure them anew: convscope.norm.recalibrate(model, loader)"
UNFIT = {
    "without statistics": (
        lambda: nn.BatchNorm2d(3, track_running_stats=False),
        "no running statistics",
        "build it with track_running_stats=True, then convscope.norm.recalibrate(model, loader)",
    ),
    "negative variance": (broken(running_var=-1.0), "no square root", ANEW),
    "NaN variance": (
        broken(running_var=float("nan")),
        "its running statistics aren't finite: running_var in 1 of 3 channels (1)",
        ANEW,
    ),
    "infinite mean": (
        broken(running_mean=float("inf")),
        "its running statistics aren't finite: running_mean in 1 of 3 channels (1)",
        ANEW,
    ),
    "both": (
        broken(running_mean=float("-inf"), running_var=float("nan")),
        "running_mean in 1 of 3 channels (1), running_var in 1 of 3 channels (1)",
        ANEW,
    ),
    "NaN weight": (broken(weight=float("nan")), "isn't finite: weight in 1 of 3 channels (1)", ""),
    "infinite bias": (broken(bias=float("inf")), "isn't finite: bias in 1 of 3 channels (1)", ""),
}


@pytest.mark.parametrize("name", UNFIT)
def test_numbers_that_are_none(name):
    make, reason, remedy = UNFIT[name]
    (unit,), _ = units(nn.Sequential(make()).eval())
    assert isinstance(unit, Unfit)
    assert reason in unit.reason
    assert unit.remedy == remedy


class Listed(nn.Module):
    """Holds a batch norm in a list that registers nothing."""

    def __init__(self):
        super().__init__()
        self.norms = [nn.BatchNorm2d(3).eval()]

    def forward(self, x):
        return self.norms[0](x)


class Unregistered(nn.Module):
    """Holds a running mean in a plain attribute."""

    def __init__(self):
        super().__init__()
        self.mean = torch.randn(3)
        self.register_buffer("var", torch.ones(3))

    def forward(self, x):
        return F.batch_norm(x, self.mean, self.var)


@pytest.mark.parametrize("make", [Listed, Unregistered])
def test_statistics_that_no_module_of_the_network_holds(make):
    (unit,), _ = units(nn.Sequential(make()).eval())
    assert isinstance(unit, Unfit)
    assert unit.reason == "its statistics aren't in the network (held in a plain list?)"
    assert unit.remedy == "hold its module in an nn.ModuleList, or its tensors by register_buffer"


def test_the_first_few_channels_are_named():
    norm = nn.BatchNorm2d(9)
    norm.running_mean[torch.tensor([0, 2, 5, 8])] = float("nan")
    (unit,), _ = units(nn.Sequential(norm).eval(), (2, 9, 4, 4))
    assert unit.reason.endswith("running_mean in 4 of 9 channels (0, 2, 5, …)")


def test_zero_variance_has_eps():
    (unit,), _ = units(nn.Sequential(broken(running_var=0.0)()).eval())
    assert unit.scale.reshape(-1)[1] == pytest.approx(1e-5**-0.5)


def test_training_mode():
    net = nn.Sequential(nn.BatchNorm2d(3)).eval()
    tape = record(net, IMAGE, device="cpu")
    net.train()
    flow = Flow(tape, net)
    (unit,) = units_of(flow, Constants(flow))
    assert "is in training mode" in unit.reason


def test_weights_computed_from_data():
    def forward(s, x):
        return F.batch_norm(x, s.bn.running_mean, s.bn.running_var, x.mean((0, 2, 3)), s.bn.bias)

    (unit,), _ = units(Functional(forward, bn=nn.BatchNorm2d(3)).eval())
    assert "its weight is computed in every run" in unit.reason


def test_weights_computed_from_parameters(randomised):
    def forward(s, x):
        return F.batch_norm(x, s.bn.running_mean, s.bn.running_var, 1 + s.bn.weight, s.bn.bias)

    net = randomised(Functional(forward, bn=nn.BatchNorm2d(3))).double()
    (unit,), _ = units(net)
    x = torch.randn(IMAGE, dtype=torch.float64)
    assert torch.allclose(torch.from_numpy(unit.scale) * x + torch.from_numpy(unit.shift), net(x))


NONE = {
    "instance norm": lambda: nn.InstanceNorm2d(3),
    "group norm": lambda: nn.GroupNorm(3, 3),
    "standardised weights": lambda: Functional(
        lambda s, x: F.conv2d(x, F.batch_norm(s.conv.weight, None, None, training=True)),
        conv=nn.Conv2d(3, 4, 1),
    ),
    "statistics that nothing is normalised by": lambda: Functional(
        lambda s, x: s.frozen(x).sigmoid(), frozen=Mixed()
    ),
}


class Mixed(Frozen):
    """What holds statistics, and does more than multiply and add by them."""

    def __init__(self):
        super().__init__("folded first")

    def forward(self, x):
        return super().forward(x) * x


@pytest.mark.parametrize("name", NONE)
def test_no_batch_norm(name):
    found, _ = units(nn.Sequential(NONE[name]()).eval())
    assert found == ()


def test_the_order_of_calls(randomised):
    net = randomised(Functional(lambda s, x: s.b(s.a(s.b(x))), a=nn.BatchNorm2d(3), b=Wrapped(3)))
    found, flow = units(net)
    assert [unit.address for unit in found] == ["b#1:batch_norm.1", "a#1", "b#2:batch_norm.1"]
    assert not_called(flow) == []


def test_modules_that_do_not_run():
    net = Functional(lambda s, x: s.a(x), a=nn.BatchNorm2d(3), b=nn.BatchNorm1d(3)).eval()
    assert not_called(units(net)[1]) == ["b"]
