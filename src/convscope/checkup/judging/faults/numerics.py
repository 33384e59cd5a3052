"""Faults of arithmetic: half-precision statistics, cancellation, a dominant ε."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.observed import NormCall, Observation
from convscope.core.finding import Evidence, Finding

_HALF = {torch.float16: 11, torch.bfloat16: 8}  # significant bits
_TOLERATED = 0.01  # of a standard deviation
_FULL_GAIN = 0.95  # what an ε of a tenth of the variance leaves of the spread: √(10 / 11)
_VARIANCE_ERROR, _WRONG_VARIANCE = 0.01, 0.1  # relative, of a batch's variance
_CONSTANT = 1e-3  # of ε: an input of less variance is a constant to the layer


@fault("dominant-epsilon")
def dominant_epsilon(observation: Observation) -> Iterator[Finding]:
    """ε isn't that of the reference, or it is so large beside the variance that outputs don't reach spread 1.

    The former is a fault of porting: by how much an output's standard deviation differs from what it was
    with the reference's ε. The latter is advice, for some networks are trained so (EfficientNet with 1e-3);
    channels whose input is all but constant aren't counted.

    Effect: the difference over a hundredth; what is missing of the spread over a twentieth.
    """
    ported = max(_ported(observation), key=lambda entry: entry[0], default=None)
    if ported is not None:
        yield _ported_finding(*ported)
    flat = [(norm, *gains) for norm in observation.norms if (gains := _flattened(norm)) is not None]
    if flat and ported is None:
        yield _flat_finding(flat)


@fault("half-statistics")
def half_statistics(observation: Observation) -> Iterator[Finding]:
    """Running statistics in half precision: small steps of the averages round to nothing.

    Effect: the relative error that stays, over a percent.
    """
    for norm in observation.norms:
        bits = _HALF.get(norm.statistics_dtype) if norm.statistics_dtype else None
        if bits is None or norm.frozen or not norm.momentum:
            continue
        stalls = 2.0**-bits / norm.momentum
        yield Finding(
            "half-statistics",
            "warning",
            norm.address,
            (
                Evidence("significant bits", bits, "bits", str(norm.statistics_dtype)),
                Evidence("smallest relative error that is corrected", stalls, "1", "2^−bits / momentum"),
            ),
            f"running statistics in {str(norm.statistics_dtype).removeprefix('torch.')} stop moving once "
            f"they are within about {stalls:.1%} of the truth, since the step rounds to nothing",
            "keep batch norms in float32 (layer.float(); autocast does so), then "
            "cs.norm.recalibrate(model, loader)",
            "round to nearest: a step below half a unit in the last place is lost",
            effect=stalls / _TOLERATED,
        )


def _ported(observation: Observation) -> Iterator[tuple[float, float, NormCall, float]]:
    """Layers with another ε than the reference's: difference of spreads, relative scale error, its ε."""
    facts = observation.reference
    for norm in () if facts is None else observation.norms:
        other = facts.norms.get(norm.path) if facts is not None else None
        variance_C = norm.running_variance
        if other is None or other.eps is None or variance_C is None or other.eps == norm.eps:
            continue
        difference = float((_spread(variance_C, norm.eps) - _spread(variance_C, other.eps)).abs().max())
        scale = float((((variance_C + other.eps) / (variance_C + norm.eps)).sqrt() - 1).abs().max())
        if difference > _TOLERATED:
            yield difference, scale, norm, other.eps


def _ported_finding(difference: float, scale: float, norm: NormCall, eps: float) -> Finding:
    return Finding(
        "dominant-epsilon",
        "warning",
        norm.address,
        (
            Evidence(
                "difference of spreads", difference, "σ", "|√(v / (v + ε)) − √(v / (v + ε₀))|, worst channel"
            ),
            Evidence("scale error", scale, "1", "|√((v + ε₀) / (v + ε)) − 1|, worst channel"),
            Evidence("ε", norm.eps, "1"),
            Evidence("the reference's ε₀", eps, "1"),
        ),
        f"ε is {norm.eps:g} here and {eps:g} in the reference: normalised, channels are off by up to "
        f"{difference:.2g} of a standard deviation (scaled by up to {scale:+.1%})",
        f"set eps={eps:g}, as in the network that the weights come from",
        "y = γ (x − μ) / √(v + ε) + β: weights are learnt with their ε (TensorFlow's default is 1e-3)",
        effect=difference / _TOLERATED,
    )


def _flattened(norm: NormCall) -> tuple[float, int, int] | None:
    """The least spread of any channel that ε flattens, how many those are, and how many are constant."""
    variance_C = norm.running_variance
    if variance_C is None or not bool(variance_C.isfinite().all()):
        return None
    measured_C = variance_C if norm.population is None else norm.population.variance
    spread_C = (measured_C.clamp_min(0) / (variance_C.clamp_min(0) + norm.eps)).sqrt()
    constant_C = torch.maximum(variance_C, measured_C) < _CONSTANT * norm.eps
    flat_C = (_spread(variance_C, norm.eps) < _FULL_GAIN) & (spread_C < _FULL_GAIN) & ~constant_C
    if not bool(flat_C.any()):
        return None
    return float(spread_C[flat_C].min()), int(flat_C.sum()), int(constant_C.sum())


def _flat_finding(flat: list[tuple[NormCall, float, int, int]]) -> Finding:
    norm, spread, count, constant = min(flat, key=lambda entry: entry[1])
    by = "running variance" if norm.population is None else "measured"
    return Finding(
        "dominant-epsilon",
        "advice",
        norm.address,
        (
            Evidence("standard deviation of a normalised channel", spread, "1", f"{by}, smallest"),
            Evidence("channels below 95 %", count, "channels", "in this layer; constant ones apart"),
            Evidence("channels with a constant input", constant, "channels", "variance below ε / 1000"),
            Evidence("layers", len(flat), "layers", "with such channels"),
            Evidence("ε", norm.eps, "1"),
        ),
        f"ε = {norm.eps:g} is large beside the variance of {count} channels: normalised, they have a "
        f"standard deviation down to {spread:.2g} instead of 1",
        "if the weights come from elsewhere, set eps= to the source's; for a new training, check the inputs' "
        "scale, or a smaller eps=",
        "y = γ (x − μ) / √(v + ε) + β",
        effect=max(1.0, (1 - spread) / (1 - _FULL_GAIN)),
    )


def _spread(variance_C: Tensor, eps: float) -> Tensor:
    """The standard deviation of a normalised channel."""
    return (variance_C.clamp_min(0) / (variance_C.clamp_min(0) + eps)).sqrt().nan_to_num(nan=0.0)


@fault("cancellation")
def cancellation(observation: Observation) -> Iterator[Finding]:
    """PyTorch's operator loses the variance of inputs whose mean is large beside their spread.

    Measured on the batches as they lie in memory, by the operator that runs in training, against float64.
    Effect: the relative error over a hundredth.
    """
    found = [
        (norm.inputs.variance_error, norm)
        for norm in observation.norms
        if norm.inputs is not None and norm.inputs.variance_error is not None
    ]
    for error, norm in sorted(found, key=lambda entry: -entry[0]):
        # The operator hands over 1 / σ in the statistics' dtype: half a unit in the last place, twice.
        bits = _HALF.get(norm.statistics_dtype) if norm.statistics_dtype else None
        if error > _VARIANCE_ERROR + (4 * 2.0**-bits if bits is not None else 0.0):
            yield _cancelling(error, norm)


def _cancelling(error: float, norm: NormCall) -> Finding:
    spread = 0.0 if norm.inputs is None else norm.inputs.mean_to_spread
    amount = f"by a factor of up to {1 + error:.3g}" if error > 1 else f"by up to {error:.1%}"
    if math.isinf(error):
        amount = "so that it isn't a number"
    return Finding(
        "cancellation",
        "error" if error > _WRONG_VARIANCE else "warning",
        norm.address,
        (
            Evidence(
                "relative error of the batch variance",
                error,
                "1",
                "PyTorch's operator against float64, worst",
            ),
            Evidence("mean to spread", spread, "1", "|μ| / √(σ² + ε), worst channel"),
        ),
        f"in training the variance of a batch is wrong here {amount}, since means are up to {spread:.2g} "
        "times the spread, and rounding of the mean is squared into it",
        "centre the inputs (subtract their mean); or memory_format=torch.contiguous_format; or "
        "cs.norm.convert(model, 'batch'), whose sums are corrected",
        "Chan, Golub and LeVeque, Algorithms for Computing the Sample Variance, The American Statistician "
        "37, 1983; pytorch issue 121651",
        effect=error / _VARIANCE_ERROR,
    )
