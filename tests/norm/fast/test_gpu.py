"""The Triton kernels, in one process with Triton's interpreter, against float64 written out by hand."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from convscope.norm.fast import gpu
from convscope.norm.fast.activation import Piecewise

EPS = 1e-5
IDENTITY, RELU, RELU6, LEAKY = (
    Piecewise(),
    Piecewise(low=0.0),
    Piecewise(low=0.0, high=6.0),
    Piecewise(slope=0.01),
)


class Case(NamedTuple):
    size: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    rows: bool = False
    shape: Piecewise = RELU
    parameters: str = "both"
    parameter_dtype: torch.dtype = torch.float32
    values: str = "normal"
    dy: str = "dense"


F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32
CASES = {
    "odd": Case((2, 3, 13, 9)),
    "odd rows": Case((2, 3, 13, 9), rows=True),
    "one channel": Case((5, 1, 7, 7)),
    "one channel of rows": Case((5, 1), rows=True),
    "17 channels": Case((5, 17, 7, 7), shape=LEAKY),
    "17 channels of rows": Case((5, 17, 7, 7), rows=True, shape=LEAKY),
    "65 channels": Case((2, 65, 7, 7), shape=IDENTITY),
    "65 channels of rows": Case((2, 65, 7, 7), rows=True, shape=IDENTITY),
    "one position": Case((5, 17, 1, 1), shape=RELU6),
    "one sample": Case((1, 3, 13, 9), shape=RELU6, parameters="wide"),
    "one sample of rows": Case((1, 3, 13, 9), rows=True, shape=RELU6, parameters="wide"),
    "rank 2": Case((37, 17)),
    "rank 3": Case((5, 3, 13)),
    "rank 3 rows": Case((5, 3, 13), rows=True),
    "rank 5": Case((2, 3, 4, 5, 3)),
    "rank 5 rows": Case((2, 3, 4, 5, 3), rows=True),
    "equal sizes": Case((4, 4, 4, 4)),
    "equal sizes of rows": Case((4, 4, 4, 4), rows=True),
    "bfloat16": Case((3, 5, 8, 8), BF16),
    "bfloat16 rows": Case((3, 5, 8, 8), BF16, rows=True),
    "float16": Case((3, 5, 8, 8), F16, parameter_dtype=F16),
    "float16 rows": Case((3, 5, 8, 8), F16, rows=True, parameter_dtype=F16),
    "bfloat16 throughout": Case((3, 5, 8, 8), BF16, parameter_dtype=BF16),
    "no parameters": Case((3, 5, 7, 7), parameters="none"),
    "weight only": Case((3, 5, 7, 7), parameters="weight"),
    "bias only": Case((3, 5, 7, 7), parameters="bias", rows=True),
    "negative and zero weights": Case((3, 5, 7, 7), parameters="negative"),
    "exactly zero": Case((3, 5, 7, 7), parameters="zero"),
    "exactly zero, leaky": Case((3, 5, 7, 7), parameters="zero", shape=LEAKY),
    "constant channel": Case((3, 5, 7, 7), values="constant"),
    "far from zero": Case((4, 3, 60, 60), values="far"),
    "far from zero, rows": Case((4, 3, 60, 60), values="far", rows=True),
    "first values apart": Case((4, 2, 60, 60), values="apart"),
    "NaN": Case((3, 5, 7, 7), values="nan", shape=RELU6),
    "infinite": Case((3, 5, 7, 7), values="inf", rows=True),
    "expanded gradient": Case((3, 5, 7, 7), dy="expanded"),
    "transposed gradient": Case((3, 5, 7, 7), dy="transposed"),
    "transposed gradient, rows": Case((3, 5, 7, 7), dy="transposed", rows=True),
    "several parts": Case((9, 3, 64, 64)),
    "several parts of rows": Case((9, 3, 64, 64), rows=True, shape=RELU6),
    "several tiles a part": Case((2, 1100, 71, 61), BF16),
}
SLOW = {"several tiles a part"}
ORDINARY = [name for name, case in CASES.items() if case.values not in ("nan", "inf") and name not in SLOW]


class Given(NamedTuple):
    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    dy: Tensor


def made(case: Case) -> Given:
    """The same tensors in every process."""
    random = torch.Generator().manual_seed(7)
    x = torch.randn(case.size, generator=random, dtype=torch.float64) * 2 + 1
    if case.values == "constant":
        x[:, 1] = 3.7
    if case.values == "far":
        x = (x - 1) / 2 + 1e4
    if case.values == "apart":
        x[0, :, 0] = -1e4
    x = x.to(case.dtype)
    if case.values in ("nan", "inf"):
        x[1, 2, 3, 4] = float(case.values)
    channels = case.size[1]
    weight = torch.rand(channels, generator=random) + 0.5
    bias = torch.randn(channels, generator=random) * 0.3
    if case.parameters == "wide":
        weight, bias = weight * 9, bias + 3
    if case.parameters == "negative":
        weight[::2] *= -1
        weight[1] = 0
    if case.parameters == "zero":  # u is exactly 0 in the whole channel
        weight[1], bias[1] = 0, 0
    dy = torch.randn(case.size, generator=random).to(case.dtype)
    if case.dy == "expanded":
        dy = dy[:1, :, :1, :1].expand(case.size)
    if case.dy == "transposed":
        dy = dy.transpose(2, 3)
    elif case.rows:
        dy = by_rows(dy)
    return Given(
        by_rows(x) if case.rows else x,
        weight.to(case.parameter_dtype) if case.parameters not in ("none", "bias") else None,
        bias.to(case.parameter_dtype) if case.parameters not in ("none", "weight") else None,
        dy,
    )


def by_rows(x: Tensor) -> Tensor:
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def answer(case: Case) -> dict[str, Any]:
    given = made(case)
    y, *found = gpu.forward(given.x, given.weight, given.bias, EPS, case.shape)
    wanted = gpu.backward(given.dy, given.x, given.weight, given.bias, tuple(found), EPS, case.shape)
    again = gpu.backward(given.dy, given.x, given.weight, given.bias, tuple(found), EPS, case.shape)
    y_again = gpu.apply(given.x, given.weight, given.bias, tuple(found), EPS, case.shape)
    same = all(map(torch.equal, (*wanted, y), (*again, y_again)))
    return {"y": y, "statistics": found, "gradients": wanted, "same": same or case.values != "normal"}


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[str, dict[str, Any]]:
    return interpreted([name for name in CASES if name not in SLOW], tmp_path_factory.mktemp("triton"))


def interpreted(names: list[str], folder: Path) -> dict[str, dict[str, Any]]:
    pytest.importorskip("triton", reason="Triton has no build for this platform")
    out = folder / "answers.pt"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "TRITON_CACHE_DIR": str(folder)}
    run = subprocess.run(
        [sys.executable, __file__, str(out), *names], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return torch.load(out)


def reference(case: Case) -> dict[str, Any]:
    """Batch norm and the activation in float64, one formula a line."""
    given = made(case)
    x, dy = given.x.double(), given.dy.double()
    dims = [dim for dim in range(x.dim()) if dim != 1]
    column = [1, -1] + [1] * (x.dim() - 2)
    ones = torch.ones(x.shape[1], dtype=torch.float64)
    gamma = (ones if given.weight is None else given.weight.double()).view(column)
    beta = (ones * 0 if given.bias is None else given.bias.double()).view(column)
    mean = x.mean(dims, keepdim=True)
    variance = (x - mean).square().mean(dims, keepdim=True)
    xhat = (x - mean) / (variance + EPS).sqrt()
    u = gamma * xhat + beta
    v = torch.where(u > 0, u, case.shape.slope * u)
    slope = torch.where(u > 0, 1.0, case.shape.slope)
    g = dy * slope * ((v > case.shape.low) & (v < case.shape.high))
    part = g.mean(dims, keepdim=True) + xhat * (g * xhat).mean(dims, keepdim=True)
    return {
        "y": v.clamp(case.shape.low, case.shape.high),
        "mean": mean.flatten(),
        "variance": variance.flatten(),
        "dx": gamma / (variance + EPS).sqrt() * (g - part),
        "dweight": (g * xhat).sum(dims),
        "dbias": g.sum(dims),
        "near": ((u - case.shape.high).abs() < 1e-5) | (u.abs() < 1e-5),
    }


def close(found: Tensor, wanted: Tensor, dtype: torch.dtype, least: float = 1e-5) -> None:
    unit = {F32: 1e-5, F16: 1e-3, BF16: 8e-3}[dtype]
    largest = max(wanted.abs().max().item(), 1.0)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found.double(), wanted, rtol=unit, atol=least * largest)


@pytest.mark.parametrize("name", ORDINARY)
def test_agrees_with_float64(name: str, answers) -> None:
    agrees(CASES[name], answers[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SLOW))
def test_a_large_batch_agrees_with_float64(name: str, tmp_path) -> None:
    agrees(CASES[name], interpreted([name], tmp_path)[name])


def agrees(case: Case, found: dict[str, Any]) -> None:
    given, wanted = made(case), reference(case)
    # A kink within float32's reach may fall on either side; the seeds have none but those that are exact.
    exact = case.parameters in ("zero", "negative")
    assert exact or wanted["near"].float().mean() < 1e-4
    close(found["y"], wanted["y"], case.dtype, 2e-5)
    assert found["y"].dtype == case.dtype
    assert found["y"].stride() == given.x.stride()
    dx, dweight, dbias = found["gradients"]
    assert dx.dtype == case.dtype
    assert dx.stride() == given.x.stride()
    close(dx, wanted["dx"], case.dtype, 2e-5)
    for part, name, parameter in ((dweight, "dweight", given.weight), (dbias, "dbias", given.bias)):
        assert part.dtype == torch.float32
        if parameter is not None:
            close(part, wanted[name], parameter.dtype, 3e-5)
    assert found["same"]


@pytest.mark.parametrize("name", ORDINARY)
def test_statistics_are_right_wherever_the_mean_lies(name: str, answers) -> None:
    wanted = reference(CASES[name])
    shift, residual, variance = answers[name]["statistics"]
    assert {shift.dtype, residual.dtype, variance.dtype} == {F32}
    torch.testing.assert_close(variance.double(), wanted["variance"], rtol=1e-5, atol=1e-10)
    scale = wanted["variance"].sqrt() + 1e-3
    assert ((shift.double() + residual.double() - wanted["mean"]) / scale).abs().max() < 1e-5
    assert (residual.abs() <= shift.abs() * 2**-22 + 1e-6).all()


@pytest.mark.parametrize("name", ["NaN", "infinite"])
def test_what_is_not_finite_stays_in_its_channel(name: str, answers) -> None:
    case, found = CASES[name], answers[name]
    wanted = reference(case)
    others = [0, 1, 3, 4]
    assert found["y"][:, 2].isnan().all()
    assert found["gradients"][0][:, 2].isnan().all()
    assert found["gradients"][1][2].isnan()
    torch.testing.assert_close(found["y"][:, others].double(), wanted["y"][:, others], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        found["gradients"][0][:, others].double(), wanted["dx"][:, others], rtol=1e-5, atol=1e-5
    )


def test_no_gradient_passes_where_relu_is_given_exactly_zero(answers) -> None:
    case, found = CASES["exactly zero"], answers["exactly zero"]
    assert found["y"][:, 1].eq(0).all()
    assert found["gradients"][1][1] == 0
    assert found["gradients"][2][1] == 0
    leaky = answers["exactly zero, leaky"]["gradients"][2][1]
    assert math.isclose(leaky, 0.01 * made(case).dy[:, 1].double().sum(), rel_tol=1e-4, abs_tol=1e-5)


@pytest.mark.parametrize(
    ("x", "taken"),
    [
        (torch.zeros(2, 3), True),
        (torch.zeros(2, 3, 4, dtype=F16), True),
        (by_rows(torch.zeros(2, 3, 4, 5, 6, dtype=BF16)), True),
        (torch.zeros(2, 3, 4, 4).double(), False),
        (torch.zeros(2, 3, 4, 4)[:, :, ::2], False),
        (torch.zeros(2, 3, 4, 4).transpose(2, 3), False),
        (torch.zeros(3), False),
        (torch.zeros(2, 0, 4), False),
        (torch.zeros(0, 3, 4), False),
    ],
)
def test_takes_dense_batches_in_either_order(x: Tensor, taken: bool) -> None:
    assert gpu.takes(x) is taken


def test_importing_convscope_imports_no_kernels() -> None:
    names = "convscope, convscope.norm, convscope.norm.fast.gpu"
    code = f"import sys, {names}; sys.exit('convscope.norm.fast.gpu_kernels' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


if __name__ == "__main__":
    torch.save({name: answer(CASES[name]) for name in sys.argv[2:]}, sys.argv[1])
