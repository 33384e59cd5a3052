"""Mean and variance that stay right when the mean is large, in every memory layout.

The textbook E[x²] − E[x]² loses all digits of a float32 variance once mean/std reaches 1e4, and a two-pass
sum is only as good as its mean: PyTorch 2.13's own CPU batch norm adds 2**20 float32 values of a
channels_last tensor one after the other, misses the mean by 1 %, and returns a variance of 93 instead of 1
at mean/std = 1e3. Here the first pass need not be exact, for the second measures what it missed and takes
it out (the corrected two-pass algorithm).

Accuracy on CPU, float32, up to 2**20 values and mean/std up to 1e4, relative to float64: variance within
1e-5, mean within 2 units in the last place (tests). Values whose square overflows, beyond 1e19 in float32,
have an infinite variance here as in PyTorch.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_ACCUMULATED_IN = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


class Moments(NamedTuple):
    """Mean and biased variance over some dimensions, which are kept with size 1.

    The mean is ``shift + residual``, two numbers, since float32 numbers near 1e4 are 1e-3 apart: a mean in
    one number would move normalised values by up to 5e-4 at mean/std = 1e4.

    Attributes:
        shift: a mean within a few units in the last place.
        residual: the mean of ``x − shift``.
        variance: the mean of ``(x − mean)²``, never negative.
        scratch: a tensor like the input, in the dtype of the statistics, that the caller may overwrite.
    """

    shift: Float[Tensor, "*sets"]
    residual: Float[Tensor, "*sets"]
    variance: Float[Tensor, "*sets"]
    scratch: Float[Tensor, "..."]


def moments(x: Float[Tensor, "..."], dims: tuple[int, ...]) -> Moments:
    """Return the mean and the biased variance over some dimensions, by the corrected two-pass algorithm.

    With K a first mean and d = x − K: mean = K + E[d], variance = E[d²] − E[d]². E[d] is tiny, so that the
    subtraction cancels nothing. Differentiable in ``x`` as often as wanted.

    Args:
        x: floating point, any layout; half precision is accumulated in float32.
        dims: the dimensions to average over, in ascending order, at least one.

    Returns:
        :class:`Moments`, in float32 for half precision and in the dtype of ``x`` otherwise.

    Source:
        Chan, Golub and LeVeque, "Algorithms for computing the sample variance", The American Statistician
        37 (1983), equation 1.7.

    Example:
        >>> found = moments(torch.tensor([[1.0, 2.0, 3.0]]), dims=(1,))
        >>> (found.shift + found.residual).item(), round(found.variance.item(), 4)
        (2.0, 0.6667)
    """
    x = widened(x)
    count = set_size(x.shape, dims)
    # Any constant will do for K, so that no gradient goes through it.
    shift = total(x.detach(), dims) / count
    deviation = x - shift
    residual = total(deviation, dims) / count
    # In place: a second tensor of the input's size costs more than all the arithmetic here.
    scratch = deviation.pow_(2)
    variance = total(scratch, dims) / count - residual.square()
    return Moments(shift, residual, variance.clamp_min(0), scratch)


def set_size(shape: Sequence[int], dims: tuple[int, ...]) -> int:
    """Return how many values share one mean and variance.

    Example:
        >>> set_size((2, 3, 4, 5), (0, 2, 3))
        40
    """
    return math.prod([shape[dim] for dim in dims])  # a list: torch.compile traces no generator here


def total(x: Float[Tensor, "..."], dims: tuple[int, ...]) -> Float[Tensor, "*sets"]:
    """Return the sum over some dimensions, kept with size 1; over none of them, the tensor itself.

    Contiguous maps are summed over space first, then over samples: three times as fast as both at once.

    Example:
        >>> total(torch.ones(2, 3, 4, 5), (0, 2, 3)).flatten().tolist()
        [40.0, 40.0, 40.0]
    """
    if not dims:
        return x
    apart = len(dims) > 1 and dims[1] > dims[0] + 1
    if apart and x.is_contiguous():
        x, dims = x.sum(dims[1:], keepdim=True), dims[:1]
    return x.sum(dims, keepdim=True)


def widened(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return a tensor in the dtype that its statistics accumulate in: float32 for half precision.

    Example:
        >>> widened(torch.ones(2, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return x.to(_ACCUMULATED_IN.get(x.dtype, x.dtype))
