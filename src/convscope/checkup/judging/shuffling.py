"""Are batches as alike as if samples had been drawn at random?

One-way analysis of variance, per channel, on the means of single images: between B batches,
MS_B = Σ n_b (μ_b − μ)² / (B − 1); within them MS_W, over N − B degrees of freedom. Of samples drawn at random
both estimate the variance between images, and F = MS_B / MS_W follows the F distribution. Channels aren't
independent of one another, so their median decides: it exceeds what one channel exceeds with probability p
with a probability of at most 2 p, however they depend (Markov's inequality on the share of channels above).

Limits: images are taken to be drawn one by one; layers that see several crops or frames of a sample as images
of their own are left out.
"""

import math
from dataclasses import dataclass

from convscope.checkup.observed import NormCall, Observation, Population

_UNLIKELY = 2.9e-7  # five standard deviations of a normal, one side
_TOLERATED = 2.0  # times the variance of shuffled batches' means
_HARMLESS = 0.1  # standard deviations by which a batch's mean may be off anyway


@dataclass(frozen=True)
class Sorted:
    """How much batches differ, of a layer whose batches weren't shuffled.

    Attributes:
        ratio: variance of batch means over that of shuffled batches' means, median over channels.
        chance: upper bound on the probability of that for shuffled batches.
        noise: standard deviation of batch means, in standard deviations of the values; root mean square over
            channels, so that 1 / noise² is the number of independent values that a batch is worth.
        shuffled_noise: the same as it would be for shuffled batches.
        size: ``ratio`` over what is tolerated.
    """

    ratio: float
    chance: float
    noise: float
    shuffled_noise: float

    @property
    def size(self) -> float:
        """``ratio`` as a multiple of what is tolerated."""
        return self.ratio / _TOLERATED


def sorted_by(observation: Observation, norm: NormCall) -> Sorted | None:
    """Return how sorted a layer's batches are; None if they may be shuffled, or it does no harm.

    Taken from its inputs in evaluation mode, where images have no influence on one another.
    """
    population = norm.population
    if population is None or norm.frozen or population.num_images != observation.num_samples:
        return None
    found = sortedness(population)
    if found is None or found.chance > _UNLIKELY or found.ratio <= _TOLERATED or found.noise <= _HARMLESS:
        return None
    return found


def sortedness(population: Population) -> Sorted | None:
    """Return how sorted batches are, and the chance of it; None with fewer than two, or of one image each."""
    between, within = population.num_compared - 1, population.free_within
    varies_C = (population.image_variance > 0) & (population.variance > 0)
    if between < 1 or within < 1 or population.within is None or not bool(varies_C.any()):
        return None
    square_between_C = population.batch_variance[varies_C] * population.batch_images
    variance_C, square_within_C = population.variance[varies_C], population.within[varies_C]
    # The variance between images, over all that are compared.
    image_C = (square_between_C * between + square_within_C * within) / (between + within)
    ratio_C = square_between_C / square_within_C  # infinite where images of one batch are alike
    return Sorted(
        ratio=float((square_between_C / image_C).median()),
        chance=min(1.0, 2 * f_tail(float(ratio_C.median()), between, within)),
        noise=float((population.batch_variance[varies_C] / variance_C).mean().sqrt()),
        shuffled_noise=float((image_C / population.batch_images / variance_C).mean().sqrt()),
    )


def f_tail(ratio: float, between: int, within: int) -> float:
    """Return the probability that F with these degrees of freedom exceeds ``ratio``.

    P(F > f) = I_x(ν₂ / 2, ν₁ / 2) with x = ν₂ / (ν₂ + ν₁ f): a regularised incomplete beta function, by its
    continued fraction.

    Source: NIST Digital Library of Mathematical Functions, 8.17.22 and 8.17.4.

    Example:
        >>> round(f_tail(3.0, 4, 20), 4)
        0.0432
    """
    if not ratio > 0:
        return 1.0
    if math.isinf(ratio):
        return 0.0
    a, b = within / 2, between / 2
    x = within / (within + between * ratio)
    y = between * ratio / (within + between * ratio)
    if x < (a + 1) / (a + b + 2):
        return _incomplete_beta(a, b, x, y)
    return 1 - _incomplete_beta(b, a, y, x)


def _incomplete_beta(a: float, b: float, x: float, y: float) -> float:
    """I_x(a, b) with y = 1 − x; converges fast for x < (a + 1) / (a + b + 2)."""
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(y)
    # 1 / (1 + d₁ / (1 + d₂ / (1 + …))), evaluated from the inside.
    fraction = 1.0
    for n in range(_TERMS, 0, -1):
        m = n // 2
        if n % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        fraction = 1 + d / fraction
    return math.exp(logarithm) / a / fraction


_TERMS = 400
