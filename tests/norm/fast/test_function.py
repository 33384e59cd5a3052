"""The differentiable step and its operators: derivatives, and shapes without kernels."""

import math

import pytest
import torch
from torch._subclasses import FakeTensorMode

pytest.importorskip("numba")

from convscope.norm.fast import operator
from convscope.norm.fast.activation import IDENTITY, Piecewise, piecewise
from convscope.norm.fast.function import batch_norm
from norm.four_steps import double, four_steps, relative

EPS = 1e-4
SHAPES = [IDENTITY, Piecewise(low=0.0), Piecewise(low=-0.5, high=1.0), Piecewise(slope=0.2)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def torchs(shape, u):
    bent = torch.nn.functional.leaky_relu(u, shape.slope)
    return bent if shape[1:] == (-math.inf, math.inf) else bent.clamp(shape.low, shape.high)


def problem(dtype=torch.float32, layout=torch.contiguous_format):
    x = (torch.randn(6, 5, 4, 4) + 0.5).to(dtype).contiguous(memory_format=layout).requires_grad_()
    weight = (torch.rand(5) + 0.5).to(dtype).requires_grad_()
    bias = torch.randn(5).to(dtype).requires_grad_()
    return x, weight, bias


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_first_and_second_derivatives_against_float64(shape, layout):
    given = problem(layout=layout)
    dy = torch.randn(6, 5, 4, 4, requires_grad=True)
    y, mean, variance = batch_norm(*given, EPS, shape)
    assert not mean.requires_grad
    assert not variance.requires_grad
    wide = double(*given)
    u, wide_mean, wide_variance = four_steps(
        wide[0], wide[1].view(1, 5, 1, 1), wide[2].view(1, 5, 1, 1), (0, 2, 3), EPS
    )
    wide_y, wide_dy = torchs(shape, u), dy.detach().double().requires_grad_()
    assert relative(mean, wide_mean.flatten()) < 1e-6
    assert relative(variance, wide_variance.flatten()) < 1e-6

    def derivatives(y, inputs, dy):
        first = torch.autograd.grad(y, inputs, dy, create_graph=True)
        weights = [one.detach().cos() for one in first]
        total = sum((one * weight).sum() for one, weight in zip(first, weights, strict=True))
        return *first, *torch.autograd.grad(total, (*inputs[:2], dy))

    found, should = derivatives(y, given, dy), derivatives(wide_y, wide, wide_dy)
    assert all(relative(one, other) < 1e-4 for one, other in zip(found, should, strict=True))
    plain = torch.autograd.grad(batch_norm(*given, EPS, shape)[0], given, dy)
    assert all(relative(one, other) < 1e-5 for one, other in zip(plain, should, strict=False))


@pytest.mark.parametrize("parts", [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("again", [False, True])
def test_what_is_not_given_or_not_wanted_gets_no_gradient(parts, again):
    x, *parameters = problem()
    weight, bias = (one if part else None for one, part in zip(parameters, parts, strict=True))
    y, _, _ = batch_norm(x, weight, bias, EPS, SHAPES[1])
    given = [one for one in (x, weight, bias) if one is not None]
    found = torch.autograd.grad(y.square().sum(), given, create_graph=again)
    wide = double(*given)
    u, _, _ = four_steps(wide[0], None, None, (0, 2, 3), EPS)
    u = u * wide[1].view(1, 5, 1, 1) if parts[0] else u + wide[1].view(1, 5, 1, 1) if parts[1] else u
    should = torch.autograd.grad(u.relu().square().sum(), wide)
    assert all(relative(one, other) < 1e-5 for one, other in zip(found, should, strict=True))
    y, _, _ = batch_norm(x.detach(), *problem()[1:], EPS, SHAPES[1])
    y.sum().backward()  # of γ and β alone


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_know_their_results_shapes_without_kernels(dtype, layout):
    x, weight, bias = (one.detach() for one in problem(dtype, layout))
    shape = (1.0, 0.0, math.inf)

    def all_results(x, weight, bias):
        y, *statistics = operator.batch_norm(x, weight, bias, EPS, shape)
        again = torch.ops.convscope.batch_norm_apply(x, weight, bias, statistics, EPS, shape)
        return (
            y,
            *statistics,
            again,
            *operator.batch_norm_backward(y, x, weight, bias, statistics, EPS, shape),
        )

    real = all_results(x, weight, bias)
    with FakeTensorMode() as mode:
        simulated = all_results(*map(mode.from_tensor, (x, weight, bias)))
    for one, other in zip(real, simulated, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        assert one.stride() == other.stride()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_profile_shows_one_operator_each_way(shape):
    given = problem()
    with torch.profiler.profile() as profile:
        y, _, _ = batch_norm(*given, EPS, shape)
        y.sum().backward()
    names = [event.name for event in profile.events()]
    assert names.count("convscope::batch_norm") == 1
    assert names.count("convscope::batch_norm_backward") == 1


@pytest.mark.parametrize(
    ("activation", "shape"),
    [
        (torch.nn.Identity(), IDENTITY),
        (torch.nn.ReLU(), Piecewise(low=0.0)),
        (torch.nn.ReLU6(), Piecewise(low=0.0, high=6.0)),
        (torch.nn.Hardtanh(-2, 3), Piecewise(low=-2.0, high=3.0)),
        (torch.nn.LeakyReLU(0.3), Piecewise(slope=0.3)),
        (torch.nn.SiLU(), None),
        (torch.nn.PReLU(), None),
        (torch.nn.RReLU(), None),
        (torch.nn.Hardswish(), None),
        (torch.nn.Sequential(torch.nn.ReLU()), None),
        (type("Own", (torch.nn.ReLU,), {})(), None),
    ],
    ids=str,
)
def test_which_modules_are_known(activation, shape):
    assert piecewise(activation) == shape
    if shape is not None:
        u = torch.linspace(-9, 9, 1001).double().requires_grad_()
        v = activation(u)
        assert torch.equal(shape(u), v)
        assert torch.equal(shape.derivative(u.detach()), torch.autograd.grad(v.sum(), u)[0])
