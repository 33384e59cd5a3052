"""Uncertainty over seeds: t intervals, exact sign-flip tests, medians of what wasn't always reached.

A seed is one draw of everything random about a run; the seeds of two arms are pairs. Limits: seeds say
nothing about other data; with fewer than five pairs the exact test can't reach 5 %, so no sign is called
established.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
LEAST_PAIRS = 5
"""Pairs from which a one-sided sign-flip test can reach 5 %: 1 / 2⁵ = 3.1 %."""
MOST_ENUMERATED = 20


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its 95 % t interval.

    Attributes:
        mean: of the values.
        low: lower end; None for a single value.
        high: upper end; None for a single value.
        least: the smallest value.
        most: the largest value.
        num_seeds: how many values there were.
    """

    mean: float
    low: float | None
    high: float | None
    least: float
    most: float
    num_seeds: int


def interval(values: Sequence[float]) -> Interval | None:
    """Return the mean of some values with its interval, ``mean ± t · s / √n``; None without values.

    Example:
        >>> found = interval([1.0, 2.0, 3.0])
        >>> round(found.low, 3), found.mean, round(found.high, 3)
        (-0.484, 2.0, 4.484)
    """
    if not values:
        return None
    number = len(values)
    mean = math.fsum(values) / number
    ends: tuple[float | None, float | None] = None, None
    if number > 1:
        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (number - 1))
        reach = t_quantile((1 + CONFIDENCE) / 2, number - 1) * spread / math.sqrt(number)
        ends = mean - reach, mean + reach
    return Interval(mean, *ends, min(values), max(values), number)


def t_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t distribution, for a probability of at least one half.

    Example:
        >>> round(t_quantile(0.975, 4), 4)
        2.7764
    """
    low, high = 0.0, 1.0
    while t_cdf(high, degrees) < probability:
        high *= 2
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if t_cdf(middle, degrees) < probability else (low, middle)
    return high


def t_cdf(value: float, degrees: int) -> float:
    """Return the distribution function of Student's t for a value of at least 0, by its finite sums.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan2(value, math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    term = sine if degrees % 2 == 0 else sine * cosine
    total = term if degrees > 1 else 0.0
    for step in range(1 if degrees % 2 == 0 else 2, degrees - 2, 2):
        term *= step / (step + 1) * cosine**2
        total += term
    inside = total if degrees % 2 == 0 else 2 / math.pi * (angle + total)
    return (1 + inside) / 2


def sign_flip_p(differences: Sequence[float], side: int = 0) -> float | None:
    """Return the exact p of a paired sign-flip permutation test on the mean: all 2ⁿ signs are tried.

    Were there no difference, every sign of each pair's difference would be as likely as the other; ``p`` is
    the share of sign patterns whose mean is at least as extreme as the one seen.

    Args:
        differences: one for each seed.
        side: 0 for two-sided, −1 for "below zero", +1 for "above zero".

    Returns:
        The share; None without differences, or with more than 20.

    Source: Fisher, The Design of Experiments (1935), section 21.

    Example:
        >>> sign_flip_p([1.0, 2.0, 3.0]), sign_flip_p([1.0, 2.0, 3.0], side=1)
        (0.25, 0.125)
    """
    if not differences or len(differences) > MOST_ENUMERATED:
        return None
    sums = np.zeros(1)
    for difference in np.asarray(differences, dtype=np.float64):
        sums = np.concatenate([sums + difference, sums - difference])
    seen = sums[0]  # every sign as it was
    slack = 1e-12 * float(np.abs(differences).sum())
    extreme = np.abs(sums) >= abs(seen) - slack if side == 0 else side * sums >= side * seen - slack
    return float(extreme.mean())


def reached_median(steps: Sequence[int | None]) -> float | None:
    """Return the median of steps in which None is "not within the run": later than every other.

    None if half of them or more weren't reached, where the median isn't known.

    Example:
        >>> reached_median([30, None, 10]), reached_median([30, None]), reached_median([20, 10])
        (30.0, None, 15.0)
    """
    ordered = sorted(math.inf if step is None else step for step in steps)
    if not ordered:
        return None
    half = len(ordered) // 2
    middle = ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
    return float(middle) if math.isfinite(middle) else None
