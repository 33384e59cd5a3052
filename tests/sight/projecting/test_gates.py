"""Activations x · gate(x): their signal against the gate written out in closed form."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.sight import project
from convscope.sight.projecting import gates
from sight.unjudged import unjudged


@pytest.fixture(autouse=True)
def without_scores():
    with unjudged():
        yield


class Active(nn.Module):
    """Two convolutions with any function between them."""

    def __init__(self, function):
        super().__init__()
        self.first, self.second, self.function = nn.Conv2d(2, 5, 3), nn.Conv2d(5, 4, 3), function

    def forward(self, x):
        return self.second(self.function(self.first(x)))


def ones(x, below):
    """1 where x > 0, a number elsewhere."""
    return torch.where(x > 0, torch.ones_like(x), torch.full_like(x, below))


def normal(x):
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def tanh_normal(x):
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def hard(x):
    return (x + 3).clamp(0, 6) / 6


def softened(x):
    return torch.tanh(torch.log1p(x.exp()))


def relu6(x):
    return F.relu6(3 * x) / x


def positive(x):
    return ones(x, 0.0)


def own(function):
    return lambda x: function(x) / x


SLOPE = torch.full((5,), 0.3, dtype=torch.float64)
MODULES = {
    "silu": (nn.SiLU(), torch.sigmoid),
    "silu in place": (nn.SiLU(inplace=True), torch.sigmoid),
    "gelu": (nn.GELU(), normal),
    "gelu by tanh": (nn.GELU(approximate="tanh"), tanh_normal),
    "hardswish": (nn.Hardswish(), hard),
    "hardswish in place": (nn.Hardswish(inplace=True), hard),
    "mish": (nn.Mish(), softened),
    "mish in place": (nn.Mish(inplace=True), softened),
    "relu": (nn.ReLU(), positive),
    "relu6": (lambda x: F.relu6(3 * x), relu6),
    "relu6 in place": (lambda x: F.relu6(3 * x, inplace=True), relu6),
    "clamp": (lambda x: (3 * x).clamp(0, 6), relu6),
    "clamp in place": (lambda x: (3 * x).clamp_(0, 6), relu6),
    "clamp to positives in place": (lambda x: x.clamp_(min=0), positive),
    "clamp from above": (lambda x: x.clamp(max=0.2), own(lambda x: x.clamp(max=0.2))),
    "hardtanh": (nn.Hardtanh(-0.3, 0.2), own(lambda x: x.clamp(-0.3, 0.2))),
    "leaky": (nn.LeakyReLU(0.1), lambda x: ones(x, 0.1)),
    "leaky in place": (nn.LeakyReLU(0.1, inplace=True), lambda x: ones(x, 0.1)),
    "prelu": (lambda x: F.prelu(x, SLOPE), lambda x: ones(x, 0.3)),
    "rrelu": (nn.RReLU(0.1, 0.3), lambda x: ones(x, 0.2)),
    "elu": (nn.ELU(0.7), own(lambda x: F.elu(x, 0.7))),
    "elu in place": (nn.ELU(0.7, inplace=True), own(lambda x: F.elu(x, 0.7))),
    "selu": (nn.SELU(), own(F.selu)),
    "selu in place": (nn.SELU(inplace=True), own(F.selu)),
    "celu": (nn.CELU(2.0), own(lambda x: F.celu(x, 2.0))),
    "celu in place": (nn.CELU(2.0, inplace=True), own(lambda x: F.celu(x, 2.0))),
    "threshold": (nn.Threshold(0.2, 0.0), lambda x: (x > 0.2).double()),
    "hardshrink": (nn.Hardshrink(0.1), lambda x: (x.abs() > 0.1).double()),
    "softshrink": (nn.Softshrink(0.1), own(lambda x: F.softshrink(x, 0.1))),
    "tanh": (nn.Tanh(), own(torch.tanh)),
}
WRITTEN_OUT = {
    "silu": (lambda x: x * torch.sigmoid(x), torch.sigmoid),
    "silu, gate first": (lambda x: torch.sigmoid(x) * x, torch.sigmoid),
    "silu in place": (lambda x: (y := x * 1.0).mul_(y.sigmoid()), torch.sigmoid),
    "gelu by sigmoid": (lambda x: x * torch.sigmoid(1.702 * x), lambda x: torch.sigmoid(1.702 * x)),
    "gelu": (lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2))), normal),
    "gelu by tanh": (lambda x: 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.04 * torch.pow(x, 3)))), None),
    "hardswish": (lambda x: x * F.relu6(x + 3) / 6, hard),
    "hardswish, gate scaled": (lambda x: x * (F.relu6(x + 3) / 6), hard),
    "hardswish by its gate": (lambda x: x * F.hardsigmoid(x), hard),
    "mish": (lambda x: x * torch.tanh(F.softplus(x)), softened),
    "softsign": (F.softsign, lambda x: 1 / (1 + x.abs())),
    "mask": (lambda x: x * (x > 0).to(x.dtype), positive),
    "leaky": (lambda x: torch.where(x > 0, x, 0.1 * x), lambda x: ones(x, 0.1)),
    "hard threshold": (lambda x: torch.where(x > 0.2, x, torch.zeros_like(x)), lambda x: (x > 0.2).double()),
    "masked fill": (lambda x: x.masked_fill(x < 0, 0.0), positive),
    "squared relu": (lambda x: F.relu(x) ** 2, lambda x: x.clamp(min=0)),
}


def expected(net, image, gate, place):
    """max(g, 0) · gate(x), between two transposed convolutions."""
    with torch.no_grad():
        x = net.first(image[None])
        seed = torch.zeros_like(net.second(x))
        seed[0, 1][place] = 1
        signal = F.conv_transpose2d(seed, net.second.weight).clamp(min=0) * gate(x)
        return F.conv_transpose2d(signal, net.first.weight)[0].permute(1, 2, 0)


@pytest.mark.parametrize(
    ("function", "gate"),
    [pytest.param(*case, id=name) for name, case in MODULES.items()]
    + [pytest.param(*case, id=f"{name}, written out") for name, case in WRITTEN_OUT.items()],
)
def test_the_signal_is_rectified_and_gated(function, gate):
    net = Active(function).double().eval()
    if gate is None:
        gate = own(function)
    image = torch.randn(2, 9, 8, dtype=torch.float64)
    found = project(net, image, "second", 1, rule="gated", position=(2, 3))
    truth = expected(net, image, gate, (2, 3))
    assert truth.any()
    torch.testing.assert_close(found.image, truth, rtol=1e-9, atol=1e-13)
    assert 1 <= len(found.census.gated) <= 2
    assert found.census.frozen == found.census.left == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["silu", "gelu", "relu6 in place", "mish", "selu", "prelu", "tanh"])
def test_gates_of_half_precision_are_those_of_its_values(dtype, name):
    function, gate = MODULES[name]
    slope = SLOPE.to(dtype)
    net = Active((lambda x: F.prelu(x, slope)) if name == "prelu" else function).to(dtype).eval()
    image = torch.randn(2, 9, 8).to(dtype)
    found = project(net, image, "second", 1, rule="gated", position=(2, 3)).image
    truth = expected(net.double(), image.double(), gate, (2, 3))
    assert found.dtype is dtype
    assert float((found.double() - truth).norm() / truth.norm()) < 16 * torch.finfo(dtype).eps


@pytest.mark.parametrize(
    ("op", "args", "limit"),
    [
        ("hardtanh_backward", (-1.0, 1.0), 1.0), ("hardtanh_backward", (0.0, 6.0), 0.0),
        ("mish_backward", (), math.tanh(math.log(2))), ("silu_backward", (), 0.5),
        ("gelu_backward", (), 0.5), ("hardswish_backward", (), 0.5),
        ("leaky_relu_backward", (0.1, False), 0.1),
        ("softshrink_backward", (0.5,), 0.0), ("tanh_backward", (), 1.0),
    ],
)  # fmt: skip
def test_at_zero_a_gate_is_its_limit(op, args, limit):
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    assert gates.gated_signal(op, (one, zero, *args), {}) == pytest.approx(limit, abs=1e-15)
    assert gates.gated_signal(op, (-one, zero, *args), {}) == 0


@pytest.mark.parametrize("is_result", [False, True])
def test_the_gate_of_elu_at_zero_is_its_slope(is_result):
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    found = gates.gated_signal("elu_backward", (one, 0.7, 1.2, 0.5, is_result, zero), {})
    assert found == pytest.approx(0.7 * 1.2 * 0.5)


def test_an_activation_written_into_a_part_is_refused_by_name():
    def halves(x):
        x = x * 1.0
        x[:, :2].clamp_(0, 6)
        return x

    with pytest.raises(ConvscopeError, match=r"clamp_ at self#1:clamp_.1.*part of a tensor"):
        project(Active(halves), torch.randn(2, 9, 8), "second", 1, rule="gated")


def test_a_fused_activation_written_into_a_part_is_gated_there():
    def halves(x):
        x = x * 1.0
        F.silu(x[:, :2], inplace=True)
        return x

    net = Active(halves).double()
    image = torch.randn(2, 9, 8, dtype=torch.float64)
    with torch.no_grad():
        x = net.first(image[None])
        seed = torch.zeros(1, 4, 5, 4, dtype=torch.float64)
        seed[0, 1, 2, 3] = 1
        signal = F.conv_transpose2d(seed, net.second.weight)
        signal[:, :2] = signal[:, :2].clamp(min=0) * x[:, :2].sigmoid()
        truth = F.conv_transpose2d(signal, net.first.weight)[0].permute(1, 2, 0)
    found = project(net, image, "second", 1, rule="gated", position=(2, 3))
    torch.testing.assert_close(found.image, truth, rtol=1e-12, atol=1e-15)


def test_in_place_a_saturated_elu_keeps_a_gate():
    """Its input is read off its result, −1 in float32: the gate ends, it doesn't shut."""
    gate = gates.BACKWARDS["elu_backward"]
    found = gate(1.0, 1.0, 1.0, True, torch.tensor([-1.0, -0.5]))
    expected = torch.tensor([1 / (24 * math.log(2)), -0.5 / math.log(0.5)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
