"""Intervals for a mean over pairs of images.

Pairs that share an image aren't independent, so the spread over pairs says too little. The jackknife leaves
out one image after the other, with all of its pairs: with θ₍ᵢ₎ the mean without image i,

    standard error² = (n − 1) / n · Σᵢ (θ₍ᵢ₎ − mean θ₍·₎)².

Source:
    B. Efron and C. Stein, "The jackknife estimate of variance", Annals of Statistics 9, 1981, on functions of
    independent images; it errs on the large side on average.
"""

from jaxtyping import Float
from torch import Tensor

from convscope.core.student import student
from convscope.sight.corresponding.result import Estimate

_SIGMAS = 1.959964  # of a normal distribution, for 95 %


def over_pairs(values: Float[Tensor, "n n"]) -> Estimate | None:
    """Return the mean of a symmetric matrix over its pairs, with its interval; None if there is no pair.

    Args:
        values: NaN where a pair is missing, the diagonal included.

    Example:
        >>> import torch
        >>> matrix = torch.tensor([[torch.nan, 0.2, 0.4], [0.2, torch.nan, 0.6], [0.4, 0.6, torch.nan]])
        >>> estimate = over_pairs(matrix.double())
        >>> round(estimate.value, 6), round(estimate.standard_error, 4)
        (0.4, 0.2309)
    """
    known = ~values.isnan()
    used = known.any(1)
    totals, counts = values.nan_to_num(0).sum(1), known.sum(1)
    total, count = totals.sum() / 2, counts.sum() / 2
    if not count:
        return None
    value, num_images = float(total / count), int(used.sum())
    left = count - counts[used]
    if num_images < 3 or bool((left <= 0).any()):
        return Estimate(value)
    without = (total - totals[used]) / left
    error = float(((num_images - 1) / num_images * (without - without.mean()).square().sum()).sqrt())
    reach = student(_SIGMAS, num_images - 1) * error
    return Estimate(value, error, value - reach, value + reach)
