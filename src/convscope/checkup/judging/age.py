"""How much of a layer's running statistics is still what they started from.

After n batches of weight w the starting values, mean 0 and variance 1, have the weight a = (1 − w)ⁿ in the
averages: running mean = (1 − a) · true, running variance = (1 − a) · true + a. Where the true variance is
small, even a weight of 0.5 % (50 batches at momentum 0.1) is most of the running variance. Both equations
can be solved for what the averages would be without their start, as Adam does with its moments.
"""

from dataclasses import replace

from torch import Tensor

from convscope.checkup.observed import NormCall

_ROUNDING = 1e-5


def starting_weight(norm: NormCall) -> float | None:
    """Return a; None if it isn't known.

    A checkpoint without a counter has a count of 0 and statistics other than 0 and 1: their age is unknown.
    So is that of averages whose variance is below what the start would have left.

    Example:
        >>> from convscope.checkup.measuring.describe import Roster
        >>> from torch import nn
        >>> starting_weight(Roster(nn.Sequential(nn.BatchNorm2d(3))).from_module("0"))
        1.0
    """
    mean_C, variance_C = norm.running_mean, norm.running_variance
    if norm.num_batches_tracked is None or mean_C is None or variance_C is None:
        return None
    if norm.num_batches_tracked == 0:
        return 1.0 if bool((mean_C == 0).all() and (variance_C == 1).all()) else None
    if norm.momentum is None:
        return 0.0
    if not 0 < norm.momentum <= 1:
        return None  # 0: they never moved, and came from elsewhere; else they aren't averages
    weight = float((1 - norm.momentum) ** norm.num_batches_tracked)
    # Less than the start would have left by now: the averages were made in another way.
    return None if bool((variance_C < weight * (1 - _ROUNDING)).any()) else weight


def starting_share(norm: NormCall) -> Tensor | None:
    """Return the part of each channel's running variance that is the starting value's, at most 1."""
    weight = starting_weight(norm)
    if weight is None or norm.running_variance is None:
        return None
    return (weight / norm.running_variance).clamp_max(1).nan_to_num(nan=0.0)


def without_start(norm: NormCall) -> NormCall | None:
    """Return the call as if its averages had had no start; None if they have, or are, nothing else."""
    weight = starting_weight(norm)
    if weight is None or weight >= 1 or norm.running_mean is None or norm.running_variance is None:
        return None
    return replace(
        norm,
        running_mean=norm.running_mean / (1 - weight),
        running_variance=((norm.running_variance - weight) / (1 - weight)).clamp_min(0),
    )
