"""Mean and variance of a union of sets, from those of the sets: Chan's formula in float64.

A tensor's blocks, the processes of a group and the batches of a data set are pooled by the same few lines,
so that a set of 2 values never weighs as much as one of 1,000.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Summary(NamedTuple):
    """How many values a set has, their mean, and their squared distance from it, in float64.

    Attributes:
        count: n, a whole number, of a shape that broadcasts to that of the mean.
        mean: Σx / n; any number where n is 0.
        squares: Σ(x − mean)², never negative.
    """

    count: Float[Tensor, "..."]  # type: ignore[assignment]  # hides tuple.count
    mean: Float[Tensor, "*sets"]
    squares: Float[Tensor, "*sets"]

    @property
    def variance(self) -> Float[Tensor, "*sets"]:
        """The biased variance Σ(x − mean)² / n, which normalises a batch; NaN for an empty set."""
        return self.squares / self.count

    @property
    def unbiased_variance(self) -> Float[Tensor, "*sets"]:
        """The unbiased variance Σ(x − mean)² / (n − 1), which running averages store; NaN for n < 2."""
        return self.squares / (self.count - 1).where(self.count > 1, math.nan)


def merged(parts: Sequence[Summary]) -> Summary:
    """Return the summary of the union of sets, in any order and number: Chan's formula.

    Args:
        parts: at least one; of one shape, on one device.

    Example:
        >>> one = Summary(*(torch.tensor(number).double() for number in (3, 3.0, 14.0)))  # 1, 2, 6
        >>> other = Summary(*(torch.tensor(number).double() for number in (1, 11.0, 0.0)))
        >>> [number.item() for number in merged([one, other])]
        [4.0, 5.0, 62.0]
    """
    counts = [part.count.expand_as(part.mean) for part in parts]
    means, squares = [part.mean for part in parts], [part.squares for part in parts]
    return pooled(Summary(torch.stack(counts), torch.stack(means), torch.stack(squares)))


def pooled(sets: Summary) -> Summary:
    """Return the summary of the union of the sets along the first dimension.

        n = Σ nᵢ,   mean = Σ nᵢ meanᵢ / n,   squares = Σ squaresᵢ + Σ nᵢ (meanᵢ − mean)²

    Empty sets change nothing, whatever their mean. Means are taken relative to one of a set that isn't
    empty, so that those far from zero lose no digits.

    Source:
        Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
        variances", COMPSTAT 1982, equation 2.1, for any number of sets.

    Example:
        >>> numbers = ([3.0, 0.0, 1.0], [3.0, 7.0, 11.0], [14.0, 0.0, 0.0])
        >>> [number.item() for number in pooled(Summary(*map(torch.tensor, numbers)))]
        [4.0, 5.0, 62.0]
    """
    empty = sets.count == 0
    origin = sets.mean.gather(0, empty.long().argmin(0, keepdim=True))
    offsets = (sets.mean - origin).masked_fill(empty, 0)
    count = sets.count.sum(0)
    offset = (sets.count * offsets).sum(0) / count.clamp_min(1)
    between = (sets.count * (offsets - offset).square()).sum(0)
    return Summary(count, origin[0] + offset, sets.squares.masked_fill(empty, 0).sum(0) + between)
