"""What is the largest batch that fits? A search that doesn't take fitting for monotone.

Memory under a caching allocator isn't monotone in the batch: one more image can leave better-fitting holes.
What is monotone is the sum of the tensors, which bounds the search from above. From there every batch is
tried in turn, so that the first that fits is the largest. Where that takes too long, the search goes on in
growing strides, and ends at a batch that fits while none of the next few does.
"""

from collections.abc import Callable
from dataclasses import dataclass

WINDOW = 8
"""Neighbours that are tried beside an answer."""


@dataclass(frozen=True)
class Found:
    """The end of a search.

    Attributes:
        batch: it fits, and none of the next :data:`WINDOW` does; 0: none was found.
        exact: no larger batch fits: all up to the bound were tried.
    """

    batch: int
    exact: bool


def largest_below(holds: Callable[[int], bool], most: int) -> int:
    """Return the largest number from 1 to ``most`` for which a falling predicate holds; 0 if none does.

    Example:
        >>> largest_below(lambda number: number * number <= 50, 1000)
        7
    """
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def largest_that_fits(fits: Callable[[int], bool], bound: int, budget: int) -> Found:
    """Return the largest batch that fits.

    Args:
        fits: whether a batch fits; may be asked for a batch more than once.
        bound: no larger batch can fit.
        budget: so many batches from the bound downwards are tried one by one.

    Example:
        >>> largest_that_fits(lambda batch: batch <= 40 or batch == 56, 60, budget=10)
        Found(batch=56, exact=True)
        >>> largest_that_fits(lambda batch: batch <= 40 or batch == 56, 60, budget=2)
        Found(batch=40, exact=False)
    """
    last = max(bound - budget, 0)
    for batch in range(bound, last, -1):
        if fits(batch):
            return Found(batch, exact=True)
    if last == 0:
        return Found(0, exact=True)
    batch, refused, stride = last, last + 1, 1
    while batch > 0 and not fits(batch):
        refused = batch
        batch, stride = max(batch - stride, 0), 2 * stride
    start = batch
    batch += largest_below(lambda more: fits(start + more), refused - start - 1)
    while batch > 0:
        above = range(min(batch + WINDOW, last), batch, -1)
        better = next((other for other in above if fits(other)), None)
        if better is None:
            break
        batch = better
    return Found(batch, exact=False)
