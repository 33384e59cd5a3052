"""Running statistics against the population's: how far off, and how surely.

In the layer's own units: with running mean μ_r and variance v_r, the normalised inputs
x̂ = (x − μ_r) / √(v_r + ε) have at test time the mean (μ − μ_r) / √(v_r + ε) and, up to ε, the variance
(σ² + ε) / (v_r + ε). They should be 0 and 1; the residuals are that mean and the logarithm of that variance.

Both sides are estimates. The population's come from N images; the running averages, of weight w per batch
of n images, have the noise of (2 − w) / w batches. So the variance of a difference is that between images
times 1/N + w / ((2 − w) n). A channel counts as stale only if its residual exceeds a tolerance by five of
these standard errors, or what stands for five at so few images (Student's t).

A sample shows how far it can be trusted only if it holds the images that matter. In some layers a few images
make up most of a channel's variance; where a sample has none of them, its variance and the standard error of
that are both too small. So where the running variance is the larger one, the error is taken for at least
that of the layer's other channels (their 90th percentile): images that are rare for one are so for others.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from convscope.checkup.observed import NormCall, Population
from convscope.core.student import student

MEAN_TOLERANCE = 0.5
"""Standard deviations by which a running mean may be off: training moves weights faster than averages."""

VARIANCE_TOLERANCE = math.log(2)
"""Logarithm of the factor by which a running variance may be off."""

SIGMAS = 5.0
"""Standard errors by which an effect must exceed its tolerance, so that it isn't chance."""


@dataclass(frozen=True, eq=False)
class Residuals:
    """Per channel, in float64; see the module's docstring.

    Attributes:
        mean: mean of the normalised inputs, signed.
        mean_error: its standard error; infinite for one image.
        variance: logarithm of the normalised inputs' variance, signed; 0 where the input is constant.
        variance_error: its standard error; where the logarithm is negative at least that of other channels.
        num_images: images that the population was measured on.
    """

    mean: Tensor
    mean_error: Tensor
    variance: Tensor
    variance_error: Tensor
    num_images: int

    @property
    def stale(self) -> Tensor:
        """Which channels are off beyond tolerance and doubt."""
        doubt = student(SIGMAS, self.num_images - 1)
        mean_C = self.mean.abs() > MEAN_TOLERANCE + doubt * self.mean_error
        variance_C = self.variance.abs() > VARIANCE_TOLERANCE + doubt * self.variance_error
        return mean_C | variance_C

    @property
    def right(self) -> bool:
        """Whether every channel is within tolerance, beyond doubt: more than that none is stale."""
        doubt = student(SIGMAS, self.num_images - 1)
        mean_C = self.mean.abs() + doubt * self.mean_error <= MEAN_TOLERANCE
        variance_C = self.variance.abs() + doubt * self.variance_error <= VARIANCE_TOLERANCE
        return bool((mean_C & variance_C).all())

    @property
    def size(self) -> float:
        """The largest residual of a stale channel, in units of its tolerance; 0 if none is stale."""
        sizes_C = torch.maximum(self.mean.abs() / MEAN_TOLERANCE, self.variance.abs() / VARIANCE_TOLERANCE)
        return float(sizes_C[self.stale].max()) if bool(self.stale.any()) else 0.0


def residuals(norm: NormCall, population: Population | None) -> Residuals | None:
    """Return how far a call's running statistics are from a population; None without either."""
    mean_C, variance_C = norm.running_mean, norm.running_variance
    if population is None or mean_C is None or variance_C is None:
        return None
    scale_C = (variance_C + norm.eps).clamp_min(torch.finfo(torch.float64).tiny)
    spread_C = (population.variance + norm.eps).clamp_min(torch.finfo(torch.float64).tiny)
    share = 1 / population.num_images + _noise(norm) / population.batch_images
    variance_C = torch.where(population.variance == 0, 0.0, (spread_C / scale_C).log())
    error_C = _error(population.square_variance, share) / spread_C
    return Residuals(
        mean=(population.mean - mean_C) / scale_C.sqrt(),
        mean_error=_error(population.image_variance, share) / scale_C.sqrt(),
        variance=variance_C,
        variance_error=torch.where(variance_C < 0, error_C.maximum(_usual_most(error_C)), error_C),
        num_images=population.num_images,
    )


def shown_right(norm: NormCall) -> bool:
    """Return whether data have shown a call's running statistics to be right, at test time."""
    found = residuals(norm, norm.population)
    return found is not None and found.right


def _noise(norm: NormCall) -> float:
    """Variance of the running averages over that of one batch; NaN for a momentum that averages nothing."""
    weight = norm.momentum if norm.momentum is not None else 0.0
    return weight / (2 - weight) if 0 <= weight <= 1 else math.nan


def _error(between_images_C: Tensor, share: float) -> Tensor:
    return (between_images_C * share).sqrt().nan_to_num(nan=math.inf)


def _usual_most(error_C: Tensor) -> Tensor:
    """The 90th percentile over channels."""
    return error_C.quantile(0.9, interpolation="lower")
