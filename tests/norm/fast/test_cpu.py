"""The kernels on CPUs against the formulas written out in float64."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

pytest.importorskip("numba")

from convscope.norm.fast.activation import Piecewise
from convscope.norm.fast.cpu import arithmetic, columns, planes, rows, run
from norm.four_steps import relative

EPS = 1e-5
F32, BF16 = torch.float32, torch.bfloat16
IDENTITY, RELU, RELU6, TANH, LEAKY, BENT = (
    Piecewise(),
    Piecewise(low=0.0),
    Piecewise(low=0.0, high=6.0),
    Piecewise(low=-1.0, high=2.0),
    Piecewise(slope=0.01),
    Piecewise(slope=0.25, low=-0.5, high=1.5),
)
ACTIVATIONS = {
    IDENTITY: lambda u: u,
    RELU: F.relu,
    RELU6: F.relu6,
    TANH: lambda u: F.hardtanh(u, -1.0, 2.0),
    LEAKY: lambda u: F.leaky_relu(u, 0.01),
    BENT: lambda u: F.hardtanh(F.leaky_relu(u, 0.25), -0.5, 1.5),
}
"""PyTorch's own, for values and derivatives in float64."""


class Expected(NamedTuple):
    y: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor
    dx: torch.Tensor
    dweight: torch.Tensor
    dbias: torch.Tensor


def expected(dy, x, weight, bias, activation):
    """The four steps and their gradient, channel by channel."""
    channels = []
    for c in range(x.shape[1]):
        values, gradients = x[:, c].detach().double(), dy[:, c].detach().double()
        gamma = 1.0 if weight is None else weight[c].item()
        beta = 0.0 if bias is None else bias[c].item()
        mean = values.mean()
        variance = (values - mean).square().mean()
        root = math.sqrt(variance.item() + EPS)
        normal = (values - mean) / root
        u = (gamma * normal + beta).requires_grad_()
        y = ACTIVATIONS[activation](u)
        (q,) = torch.autograd.grad(y, u, gradients)
        dweight, dbias = (q * normal).sum(), q.sum()
        count = values.numel()
        dx = gamma / root * (q - dbias / count - normal * dweight / count)
        channels.append((y.detach(), mean, variance, dx, dweight, dbias))
    found = [torch.stack(one) for one in zip(*channels, strict=True)]
    return Expected(*(one.movedim(0, 1) if one.dim() > 1 else one for one in found))


def parameters(kind, channels):
    weight, bias = torch.rand(channels) + 0.5, torch.randn(channels) * 0.3
    if kind == "negative":
        weight[::2] *= -1
    if kind == "zero":
        weight[::2] = 0
    return {
        "none": (None, None),
        "weight": (weight, None),
        "bias": (None, bias),
        "half": (weight.bfloat16(), bias.half()),
        "double": (weight.double(), bias.double()),
        "strided": (weight.repeat_interleave(2)[::2], bias.repeat_interleave(3)[::3]),
    }.get(kind, (weight, bias))


def laid_out(x, by_rows):
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if by_rows else x


def upstream(kind, x):
    if kind == "expanded":
        return torch.randn((), dtype=x.dtype).expand(x.shape)
    if kind == "transposed":
        return torch.randn((*x.shape[1:], x.shape[0]), dtype=x.dtype).movedim(-1, 0)
    if kind == "other":
        return laid_out(torch.randn(x.shape, dtype=x.dtype), x.is_contiguous())
    return torch.randn_like(x)


def check(x, weight, bias, activation, dy):
    y, shift, residual, variance = run.forward(x, weight, bias, EPS, activation)
    again = run.apply(x, weight, bias, (shift, residual, variance), EPS, activation)
    dx, dweight, dbias = run.backward(dy, x, weight, bias, (shift, residual, variance), EPS, activation)
    should = expected(dy, x, weight, bias, activation)
    unit, tiny = (2**-8, 1e-3) if x.dtype == BF16 else (2e-6, 2e-5)
    assert y.dtype == dx.dtype == x.dtype
    assert y.stride() == dx.stride() == again.stride() == x.stride()
    assert torch.equal(again, y)
    error = (shift.double() + residual - should.mean).abs()
    assert (error <= 1.2e-7 * should.mean.abs() + 3e-7 * should.variance.sqrt()).all()
    assert torch.allclose(variance.double(), should.variance, rtol=3e-6, atol=1e-12)
    assert torch.allclose(y.double(), should.y, rtol=unit, atol=tiny)
    # A value beside a kink may fall on its other side: some may be off by as much as dy.
    wrong = (dx.double() - should.dx).abs() > unit * should.dx.abs() + tiny * (1 + should.dx.abs().max())
    assert wrong.sum() <= x.numel() // 10_000
    size = math.sqrt(x.numel() / x.shape[1]) * dy.double().abs().max()
    for found, sums in ((dweight, should.dweight), (dbias, should.dbias)):
        assert ((found.double() - sums).abs() <= 5e-6 * sums.abs() + 1e-5 * (1 + size)).all()


class Case(NamedTuple):
    size: tuple[int, ...]
    by_rows: bool = False
    activation: Piecewise = RELU
    parameters: str = "both"
    dy: str = "alike"


CASES = {
    "planes": Case((3, 5, 11, 13)),
    "planes longer than a block": Case((2, 3, 67, 131), activation=RELU6),
    "planes of a block": Case((2, 3, 64, 64), activation=LEAKY),
    "planes of one sample": Case((1, 2, 50, 41), parameters="negative"),
    "planes of one channel": Case((5, 1, 20, 20), parameters="zero"),
    "planes, rank 3": Case((3, 4, 211), activation=TANH, parameters="half"),
    "planes, rank 5": Case((2, 3, 5, 6, 7), activation=BENT, parameters="strided"),
    "planes, expanded dy": Case((3, 5, 11, 13), dy="expanded"),
    "planes, transposed dy": Case((12, 12, 12, 12), dy="transposed"),
    "planes, dy by rows": Case((3, 5, 11, 13), dy="other", parameters="none"),
    "columns": Case((3, 5, 7, 7)),
    "columns, one value a map": Case((37, 1500, 1, 1), activation=IDENTITY),
    "columns, equal sizes": Case((4, 4, 4, 4), activation=BENT),
    "columns, several together": Case((3, 43, 7, 7), parameters="weight"),
    "columns, rank 3": Case((6, 17, 5), parameters="bias", activation=TANH),
    "columns, rank 5": Case((3, 17, 2, 3, 4), parameters="negative"),
    "columns, many samples": Case((2100, 3, 3, 2), activation=LEAKY, parameters="double"),
    "columns, just as many": Case((1024, 3, 2, 2)),
    "columns, one sample": Case((1, 3, 9, 9)),
    "columns, expanded dy": Case((3, 5, 7, 7), dy="expanded", parameters="zero"),
    "columns, transposed dy": Case((7, 7, 7, 7), dy="transposed"),
    "rows": Case((3, 17, 11, 13), by_rows=True),
    "rows, rank 2": Case((501, 17), by_rows=True, activation=RELU6),
    "rows, rank 3": Case((7, 16, 29), by_rows=True, parameters="none"),
    "rows, rank 5": Case((2, 33, 3, 4, 5), by_rows=True, activation=BENT, parameters="negative"),
    "rows, 15 channels": Case((9, 15, 9, 9), by_rows=True, parameters="zero"),
    "rows, one channel": Case((301, 1), by_rows=True, activation=LEAKY),
    "rows, fewer than parts": Case((5, 40), by_rows=True),
    "rows, two": Case((2, 40), by_rows=True, parameters="half"),
    "rows, many a part": Case((64 * 1100 + 13, 16), by_rows=True, activation=TANH),
    "rows, equal sizes": Case((6, 6, 6, 6), by_rows=True),
    "rows, dy by planes": Case((3, 17, 11, 13), by_rows=True, dy="other"),
    "rows, expanded dy": Case((3, 17, 11, 13), by_rows=True, dy="expanded", parameters="strided"),
}


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("name", CASES)
def test_forward_apply_and_backward(name, dtype):
    case = CASES[name]
    x = laid_out((torch.randn(case.size) * 1.5 + 0.5).to(dtype), case.by_rows)
    check(x, *parameters(case.parameters, case.size[1]), case.activation, upstream(case.dy, x))


@pytest.mark.parametrize(
    ("size", "by_rows", "kernels"),
    [((2, 3, 10, 10), False, planes), ((2, 3, 9, 11), False, columns), ((2, 3, 10, 10), True, rows)],
)
def test_each_layout_has_its_kernels(size, by_rows, kernels, monkeypatch):
    """By what would fail without them; else the cases above might all test one."""

    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(kernels, "forward", broken)
    monkeypatch.setattr(kernels, "backward", broken)
    x = laid_out(torch.randn(size), by_rows)
    with pytest.raises(ZeroDivisionError):
        run.forward(x, None, None, EPS, RELU)
    with pytest.raises(ZeroDivisionError):
        run.backward(x, x, None, None, [torch.ones(3)] * 3, EPS, RELU)


@settings(max_examples=60)
@given(
    size=st.lists(st.integers(1, 9), min_size=2, max_size=5).filter(lambda size: math.prod(size) > size[1]),
    by_rows=st.booleans(),
    dtype=st.sampled_from([F32, BF16]),
    activation=st.sampled_from(list(ACTIVATIONS)),
    kind=st.sampled_from(["none", "weight", "bias", "both", "negative", "half"]),
    dy=st.sampled_from(["alike", "expanded", "transposed", "other"]),
    seed=st.integers(0, 2**20),
)
def test_any_shape(size, by_rows, dtype, activation, kind, dy, seed):
    torch.random.default_generator.manual_seed(seed)
    x = laid_out(torch.randn(size).to(dtype), by_rows or len(size) == 2)
    weight, bias = parameters(kind, size[1])
    plain = expected(x, x, weight, bias, IDENTITY)
    assume(plain.variance.min() > 1e-2)  # of values that are all alike, rounding decides
    for kink in (0.0, activation.high, activation.low, activation.low / activation.slope):
        assume(math.isinf(kink) or (plain.y - kink).abs().min() > 3e-6)  # likewise of derivatives there
    check(x, weight, bias, activation, upstream(dy, x))


FAR = {
    "planes": ((8, 3, 128, 128), False),
    "columns": ((3000, 3, 7, 7), False),
    "rows": ((70_000, 16), True),
}


@pytest.mark.parametrize("name", FAR)
@pytest.mark.parametrize("times", [1e2, 1e3, 1e4, -1e4, 1e5])
def test_statistics_far_from_zero(name, times):
    size, by_rows = FAR[name]
    x = laid_out(torch.randn(size) + times, by_rows)
    y, shift, residual, variance = run.forward(x, None, None, EPS, IDENTITY)
    should = expected(x, x, None, None, IDENTITY)
    ulp = np.spacing(np.float32(abs(times)))
    assert relative(variance, should.variance) < 1e-5
    assert (shift.double() + residual - should.mean).abs().max() < 2 * ulp * 1e-2
    assert (shift + residual - should.mean).abs().max() <= 2 * ulp
    assert (y - should.y).abs().max() < 2e-5 * max(
        1, abs(times) / 1e4
    )  # one float32 number for the mean would make it 5e-4


@pytest.mark.parametrize("name", FAR)
def test_gradients_far_from_zero(name):
    """The mean's second number counts: a sum of dy that isn't 0 would carry its lack into every gradient."""
    size, by_rows = FAR[name]
    x = laid_out(torch.randn(size) + 12345.0, by_rows)
    dy = torch.randn(size) + x * 0.1 - 1230
    _, *statistics = run.forward(x, None, None, EPS, IDENTITY)
    dx, dweight, _ = run.backward(dy, x, None, None, statistics, EPS, IDENTITY)
    should = expected(dy, x, None, None, IDENTITY)
    assert (dx - should.dx).abs().max() < 5e-5
    assert relative(dweight, should.dweight) < 1e-5


@pytest.mark.parametrize("name", FAR)
@pytest.mark.parametrize("begin", [0.0, 1.0, -1e4])
def test_a_beginning_unlike_the_rest(name, begin):
    size, by_rows = FAR[name]
    x = (torch.randn(size) + 1e3).movedim(1, -1).contiguous()
    x.view(-1, size[1])[:1024] = begin
    check(laid_out(x.movedim(-1, 1).contiguous(), by_rows), None, None, IDENTITY, torch.randn(size))


@pytest.mark.parametrize("name", FAR)
@pytest.mark.parametrize("value", [0.0, 0.1, -3.3e4])
def test_a_constant_channel(name, value):
    size, by_rows = FAR[name]
    x = torch.randn(size)
    x[:, 1] = value
    x, bias = laid_out(x, by_rows), torch.full(size[1:2], 0.75)
    y, shift, residual, variance = run.forward(x, None, bias, EPS, IDENTITY)
    assert (shift[1].double() + residual[1]).item() == pytest.approx(float(np.float32(value)), rel=1e-9)
    assert 0 <= variance[1] < 1e-6 * EPS * max(1, value**2)
    assert (y[:, 1] - 0.75).abs().max() < 1e-4 * max(1.0, abs(value))
    dx, dweight, _ = run.backward(y, x, None, bias, (shift, residual, variance), EPS, IDENTITY)
    assert dx.isfinite().all()
    assert dweight.isfinite().all()


@pytest.mark.parametrize("name", FAR)
def test_one_outlier(name):
    size, by_rows = FAR[name]
    x = torch.randn(size)
    spoil(x, 1e7)
    check(laid_out(x, by_rows), None, None, IDENTITY, torch.randn(size))


@pytest.mark.parametrize("name", FAR)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_in_its_channel(name, value):
    size, by_rows = FAR[name]
    good = torch.randn(size) + 1e3
    bad = good.clone()
    spoil(bad, value)
    dy = torch.randn(size)
    for activation in (IDENTITY, RELU6):
        whole = results(laid_out(good, by_rows), dy, activation)
        spoiled = results(laid_out(bad, by_rows), dy, activation)
        for one, other in zip(whole, spoiled, strict=True):
            axis = 1 if one.dim() > 1 else 0
            assert torch.equal(one.select(axis, 0), other.select(axis, 0))
            assert torch.equal(one.select(axis, 2), other.select(axis, 2))
        y, _, _, variance, dx, *_ = spoiled
        assert variance[1].isnan()
        assert y[:, 1].isnan().all()
        assert dx[:, 1].isnan().all()


def spoil(x, value):
    x[x.shape[0] // 2, 1].view(-1)[0] = value


def results(x, dy, activation=RELU):
    y, *statistics = run.forward(x, None, None, EPS, activation)
    return y, *statistics, *run.backward(dy, x, None, None, statistics, EPS, activation)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.parametrize("side", [4, 12])
def test_derivatives_at_the_kinks(activation, by_rows, side):
    """γ = 0: u is β in every bit, and q = Σ dy tells the derivative there."""
    kinks = torch.tensor([-1.0, -0.5, 0.0, 1.5, 2.0, 6.0, -0.0, -2.0])
    kinks = torch.cat([kinks, kinks.nextafter(torch.tensor(9.0)), kinks.nextafter(torch.tensor(-9.0))])
    size = (2, len(kinks), side, side)
    x, dy = laid_out(torch.randn(size), by_rows), torch.ones(size)
    y, *statistics = run.forward(x, torch.zeros(len(kinks)), kinks, EPS, activation)
    _, _, dbias = run.backward(dy, x, torch.zeros(len(kinks)), kinks, statistics, EPS, activation)
    u = kinks.double().requires_grad_()
    v = ACTIVATIONS[activation](u)
    (derivative,) = torch.autograd.grad(v.sum(), u)
    assert torch.allclose(y[0, :, 0, 0].double(), v, rtol=1e-7, atol=1e-44)
    assert torch.allclose(dbias.double() / (2 * side**2), derivative, rtol=1e-6, atol=0)
    assert torch.equal(activation.derivative(u.detach()), derivative)
    assert torch.equal(activation(u), v)


def test_bfloat16_rounds_as_pytorch_does():
    @arithmetic.summing
    def write(values, out):
        for i in range(len(values)):
            arithmetic.put(out, i, values[i])

    @arithmetic.summing
    def read(values, out):
        for i in range(len(values)):
            out[i] = arithmetic.widened(values[i])

    every = torch.arange(-(2**31), 2**31, 4099, dtype=torch.int64).to(torch.int32)
    halves = (torch.arange(2**16, dtype=torch.int32) << 16) + 0x8000  # between two bfloat16 numbers
    values = torch.cat([every, halves, halves + 1, halves - 1]).view(F32)
    bits = np.empty(len(values), np.uint16)
    write(values.numpy(), bits)
    found, should = torch.from_numpy(bits).view(BF16), values.to(BF16)
    assert torch.equal(found.isnan(), values.isnan())
    assert torch.equal(found[~values.isnan()].view(torch.int16), should[~values.isnan()].view(torch.int16))
    assert found.isinf().sum() > values.isinf().sum()  # some overflow

    all_bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    wide = np.empty(2**16, np.float32)
    read(all_bits.view(torch.uint16).numpy(), wide)
    assert torch.equal(
        torch.from_numpy(wide).view(torch.int32), all_bits.view(BF16).float().view(torch.int32)
    )


@pytest.mark.parametrize("by_rows", [False, True])
def test_hooks_on_saved_tensors_may_change_their_layout(by_rows):
    """What comes back is right, if not to the last bit."""
    x, dy = laid_out(torch.randn(4, 5, 6, 20), by_rows), torch.randn(4, 5, 6, 20)
    y, *statistics = run.forward(x, None, None, EPS, RELU)
    should = run.backward(dy, x, None, None, statistics, EPS, RELU)
    others = (
        laid_out(x.contiguous(), not by_rows),
        x.transpose(0, 3).contiguous().transpose(0, 3),
        x.repeat_interleave(2, dim=1)[:, ::2],
    )
    for other in others:
        junk = [torch.full_like(x, math.nan) for _ in range(20)]
        del junk  # so that memory that isn't written to holds NaN
        assert torch.allclose(run.apply(other, None, None, statistics, EPS, RELU), y, atol=1e-6)
        found = run.backward(dy, other, None, None, statistics, EPS, RELU)
        assert all(torch.allclose(one, two, atol=1e-5) for one, two in zip(found, should, strict=True))
