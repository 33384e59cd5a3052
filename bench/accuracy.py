"""Accuracy of batch statistics and gradients against float64, ours beside PyTorch's and textbook formulas.

Errors of float32 results for float32 inputs of mean/std = κ. The truth is the float64 result for the same
values; every figure is the worst over channels, which differ in scale and sign of the mean, and over seeds.
The statistics of layers are read from their running averages after one batch at momentum 1. An error of 1 in
a variance is 100 %; an ulp is the distance to the next float32 number. Textbook formulas run over contiguous
rows with PyTorch's own (cascading) sums; a plain loop would do worse.

convscope states: mean within 2 ulp and variance within 1e-5 for κ from 1 to 1e4, in both layouts; gradients
within 1e-6 of the largest one of the set. Figures of ours beyond that are bold. ``docs/normalisation.md``
explains the formulas.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from bench.clock import markdown
from bench.gradient_errors import LAYOUTS, gradient_errors
from convscope.norm import BatchNorm2d

SHAPES = {"65,536": (16, 8, 64, 64), "2^20": (16, 4, 256, 256)}
KAPPAS = (1.0, 1e2, 1e3, 1e4, 1e5)
SEEDS = range(3)
STATED_UP_TO = 1e4
BOUNDS = {"variance": 1e-5, "mean": 2.0, "gradient": 1e-6}

Statistics = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From maps (N, C, H, W) to the mean and the biased variance of each channel."""


def table() -> str:
    """Return the tables of errors: statistics in float32, of half inputs, gradients."""
    parts = []
    for count, shape in SHAPES.items():
        errors = {
            name: [_worst(method, shape, kappa) for kappa in KAPPAS] for name, method in METHODS.items()
        }
        for at, what, unit in ((1, "variance", "relative"), (0, "mean", "ulp")):
            rows = [_row(name, what, [error[at] for error in found]) for name, found in errors.items()]
            parts.append(
                markdown((f"{what} of {count} float32 values: error, {unit}", *_heads(KAPPAS)), rows)
            )
    return "\n\n".join([*parts, _halves(), _gradients()])


# Textbook formulas, on rows of float32 ---------------------------------------------------------------


def naive(x: Tensor) -> tuple[Tensor, Tensor]:
    """E[x²] − μ²."""
    x = _rows(x)
    mean = x.mean(1)
    return mean, (x * x).mean(1) - mean * mean


def two_pass(x: Tensor) -> tuple[Tensor, Tensor]:
    """E[(x − μ)²] with μ rounded to the dtype."""
    x = _rows(x)
    mean = x.mean(1)
    return mean, (x - mean[:, None]).square().mean(1)


def corrected_two_pass(x: Tensor) -> tuple[Tensor, Tensor]:
    """E[(x − μ)²] − E[x − μ]²: what μ missed is measured and taken out."""
    x = _rows(x)
    mean = x.mean(1)
    deviation = x - mean[:, None]
    missed = deviation.mean(1)
    return mean + missed, deviation.square().mean(1) - missed.square()


def naive_float64(x: Tensor) -> tuple[Tensor, Tensor]:
    """E[x²] − μ² in float64, rounded at the end."""
    mean, variance = naive(x.double())
    return mean.float(), variance.float()


def var_mean(x: Tensor) -> tuple[Tensor, Tensor]:
    """``torch.var_mean`` of rows."""
    variance, mean = torch.var_mean(_rows(x), 1, correction=0)
    return mean, variance


def rounded_squares(x: Tensor) -> tuple[Tensor, Tensor]:
    """E[x²] − μ² with x² rounded to a half dtype before it is summed in float32."""
    x = _rows(x)
    mean = x.float().mean(1)
    return mean, (x * x).float().mean(1) - mean * mean


def layer(make: type[nn.BatchNorm2d], layout: torch.memory_format) -> Statistics:
    """Return what a layer finds in a layout, read from its running averages."""

    def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
        batch_norm = make(x.shape[1], momentum=1.0)
        batch_norm(x.to(memory_format=layout))
        assert batch_norm.running_mean is not None
        assert batch_norm.running_var is not None
        count = x.numel() // x.shape[1]
        return batch_norm.running_mean, batch_norm.running_var.double() * (count - 1) / count

    return statistics


LAYERS: dict[str, Statistics] = {
    f"{whose}, {name}": layer(make, layout)
    for whose, make in (("torch BatchNorm2d", nn.BatchNorm2d), ("**ours**", BatchNorm2d))
    for name, layout in LAYOUTS.items()
}
METHODS: dict[str, Statistics] = {
    "E[x²] − μ²": naive,
    "two-pass": two_pass,
    "corrected two-pass": corrected_two_pass,
    "E[x²] − μ² in float64": naive_float64,
    "torch.var_mean": var_mean,
    **LAYERS,
}
HALF_METHODS: dict[str, Statistics] = {
    "E[x²] − μ², squares rounded to half": rounded_squares,
    "E[x²] − μ² in float32": lambda x: naive(x.float()),
    **LAYERS,
}


# Errors ----------------------------------------------------------------------------------------------


def _worst(
    method: Statistics, shape: tuple[int, ...], kappa: float, dtype: torch.dtype = torch.float32
) -> tuple[float, float]:
    """The worst errors of mean (ulp) and variance (relative) over channels and seeds."""
    found = [_errors(method, _batch(shape, kappa, seed).to(dtype)) for seed in SEEDS]
    mean, variance = torch.tensor(found, dtype=torch.float64).amax(0).tolist()  # a NaN stays one
    return mean, variance


def _errors(method: Statistics, x: Tensor) -> tuple[float, float]:
    mean, variance = method(x)
    values = _rows(x.double())
    true_mean = values.mean(1)
    true_variance = (values - true_mean[:, None]).square().mean(1)
    ulp = torch.nextafter(true_mean.float().abs(), torch.tensor(torch.inf)) - true_mean.float().abs()
    mean_error = (mean.double() - true_mean).abs() / ulp.double()
    return mean_error.max().item(), (variance.double() / true_variance - 1).abs().max().item()


def _batch(shape: tuple[int, ...], kappa: float, seed: int) -> Tensor:
    """Maps whose channels have scales from 0.1 to 10 and means of both signs, all at one mean/std."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.tensor([1.0, -1.0]).repeat(shape[1])[: shape[1], None, None]
    scales = torch.logspace(-1, 1, shape[1])[:, None, None]
    return (torch.randn(shape, generator=generator) + signs * kappa) * scales


def _rows(x: Tensor) -> Tensor:
    return x.transpose(0, 1).flatten(1)


# Tables ----------------------------------------------------------------------------------------------


def _halves() -> str:
    rows = []
    for dtype, kappa in ((d, k) for d in (torch.bfloat16, torch.float16) for k in (1.0, 1e2)):
        name = str(dtype).removeprefix("torch.")
        for method, statistics in HALF_METHODS.items():
            mean, variance = _worst(statistics, SHAPES["65,536"], kappa, dtype)
            rows.append((name, f"{kappa:g}", *_row(method, "variance", [variance])))
            rows[-1] += _row(method, "mean", [mean])[1:]
    head = ("65,536 half values", "κ", "method", "variance: error, relative", "mean: error, float32 ulp")
    return markdown(head, rows)


def _gradients() -> str:
    kappas = [kappa for kappa in KAPPAS if kappa <= STATED_UP_TO]
    found = gradient_errors(SHAPES["65,536"], kappas, SEEDS)
    rows = [_row(name, "gradient", errors) for name, errors in found.items()]
    return markdown(("dx in float32: largest error over the largest dx of the set", *_heads(kappas)), rows)


def _row(name: str, what: str, errors: Iterable[float]) -> tuple[str, ...]:
    cells = [f"{error:.1f}" if what == "mean" and error < 1e3 else _scientific(error) for error in errors]
    if "ours" in name:
        stated = sum(kappa <= STATED_UP_TO for kappa in KAPPAS)
        beyond = [at < stated and not error <= BOUNDS[what] for at, error in enumerate(errors)]
        cells = [f"**{cell}**" if out else cell for cell, out in zip(cells, beyond)]
    return name, *cells


def _scientific(error: float) -> str:
    if error == 0 or not math.isfinite(error):
        return f"{error:g}"
    digits, _, exponent = f"{error:.1e}".partition("e")
    return f"{digits}e{int(exponent)}"


def _heads(kappas: Iterable[float]) -> tuple[str, ...]:
    return tuple(f"κ = {_power(kappa)}" for kappa in kappas)


def _power(kappa: float) -> str:
    return "1" if kappa == 1 else _scientific(kappa).replace("1.0e", "1e")
