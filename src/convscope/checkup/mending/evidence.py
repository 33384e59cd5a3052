"""Is there enough data to replace statistics by its own?

A new mean or variance is an estimate too. Its standard error over N images follows from how single images
differ, as a residual's does (:mod:`convscope.checkup.judging.residuals`); in the layer's own units it is
√(variance of images' means / N) / σ for the mean, and √(variance of images' squares / N) / σ² for the
variance. Two of them must be within the tolerance that stale statistics are judged by. Single channels in
which a few rare images make up the variance don't count: asked is the 90th percentile over channels.
"""

import math
from collections.abc import Sequence

from convscope.checkup.judging.residuals import MEAN_TOLERANCE, VARIANCE_TOLERANCE
from convscope.checkup.observed import NormCall, Population
from convscope.core.units import counted

FEWEST_IMAGES = 16
"""Below this a standard error is itself a guess."""

_DOUBT = 2.0  # standard errors that must be within the tolerance
_MOST = 0.9  # of the channels
_ALIKE = 1e-5  # difference between images, over the values, that rounding makes


def lacking(norms: Sequence[NormCall], part: float = 1.0) -> str:
    """Return why the data isn't enough to estimate layers' statistics from; empty if it is.

    Args:
        norms: as measured on all of the data.
        part: the share of it that is estimated from.
    """
    pools = {
        norm.path: norm.batch_population or norm.population
        for norm in norms
        if not norm.frozen and norm.running_mean is not None
    }
    known = {path: found for path, found in pools.items() if found is not None}
    if not known:
        return ""
    errors = {path: _errors(found, part) for path, found in known.items()}
    num_images = min(found.num_images for found in known.values())
    if num_images > 1 and all(_is_alike(found) for found in known.values()):
        return f"the {num_images} images don't differ, so that they don't show what a variance is"
    path = max(errors, key=lambda path: max(error / limit for error, limit, _ in errors[path]))
    error, limit, what = max(errors[path], key=lambda each: each[0] / each[1])
    excess = (error / limit) ** 2
    if num_images * part >= FEWEST_IMAGES and excess <= 1:
        return ""
    over = f"over {counted(round(known[path].num_images * part), 'image')}"
    if not math.isfinite(excess):
        return (
            f"{over} nothing tells how images differ; give at least {math.ceil(FEWEST_IMAGES / part)} images"
        )
    needed = math.ceil(max(FEWEST_IMAGES / part, num_images * excess))
    return (
        f"{over} the {what} at {path} is known to ±{100 * error:.2g} %{_unit(what)} only; "
        f"give at least {needed} images"
    )


def _unit(what: str) -> str:
    return " of σ" if what == "mean" else ""


def _errors(found: Population, part: float) -> list[tuple[float, float, str]]:
    """Standard errors of the mean and of the variance, what they may be, and what they are of."""
    images = found.num_images * part
    scale_C = found.variance.clamp_min(1e-300)
    mean_C = (found.image_variance / images / scale_C).sqrt()
    variance_C = (found.square_variance / images).sqrt() / scale_C
    entries = ((mean_C, MEAN_TOLERANCE, "mean"), (variance_C, VARIANCE_TOLERANCE, "variance"))
    return [
        (
            float(error_C.nan_to_num(nan=math.inf).quantile(_MOST, interpolation="lower")),
            tolerance / _DOUBT,
            what,
        )
        for error_C, tolerance, what in entries
    ]


def _is_alike(found: Population) -> bool:
    """Whether no channel differs between images, but for rounding."""
    square_C = found.mean.square() + found.variance
    by_mean_C = found.image_variance <= _ALIKE**2 * square_C
    by_square_C = found.square_variance <= (_ALIKE * square_C).square()
    return bool((by_mean_C & by_square_C).all())
