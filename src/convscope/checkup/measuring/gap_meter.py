"""The gap between the losses with test-time and with batch statistics, and how sure it is.

The gap is paired: both losses are taken on the same samples, so that its standard error is that of their
differences, not of the losses themselves.

The samples of a batch share its statistics, so that their differences go up and down together: taken as drawn
one by one, their error came out 1.16 to 1.53 times too small (60 draws each of 2 to 8 batches of 8 to 32). So
the error is that between batches, each with its samples' weight. A few batches may agree by chance; there the
error between samples is added (squares, the latter times 3 / (B − 1), at most 1), which left the spread
of gaps at 0.86 to 1.11 such errors. How sure an error is of itself shows in the doubt: four of them by
Student's t with B − 1 degrees of freedom; with a few batches whose samples are known, what is as unlikely as
three by three degrees more, four at least; and never more than twelve where samples are known.
"""

import math

import torch
from torch import Tensor

from convscope.checkup.observed import Gap
from convscope.checkup.observed.gap import SURE
from convscope.core.student import student

_FEW_BATCHES = 10  # whose spread is known to no better than a quarter of itself
_PRIOR = 3.0  # degrees of freedom that the error between samples counts for beside few batches
_RARE = 3.0  # standard deviations that a chance of one in seven hundred is
_MOST = 12.0  # standard errors: three times the usual, which is more than common statistics were seen to add


class GapMeter:
    """Gathers the paired losses of the batches.

    Attributes:
        num_samples: of the batches that were taken in.
    """

    def __init__(self) -> None:
        self.num_samples = 0
        self._pairs: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, eval_loss: Tensor, batch_loss: Tensor, weights: Tensor, num_samples: int) -> bool:
        """Take in one batch's losses: one per sample, or one mean.

        Args:
            eval_loss: (N,), or one number.
            batch_loss: the same with batch statistics.
            weights: what each of them stands for, of the same shape, as of :func:`weights_of`.
            num_samples: how many there are in the batch.

        Returns:
            Whether there was any: not where nothing has a label.
        """
        before, after = (loss.detach().double().cpu().reshape(-1) for loss in (eval_loss, batch_loss))
        is_any = bool((weights > 0).any())
        if is_any:
            used = weights > 0
            self._pairs.append((before[used], after[used], weights[used]))
            self.num_samples += num_samples
        return is_any

    @property
    def num_batches(self) -> int:
        """How many batches were taken in."""
        return len(self._pairs)

    @property
    def by_samples(self) -> bool:
        """Whether a batch's samples have losses of their own."""
        return any(len(weights) > 1 for _, _, weights in self._pairs)

    def gap(self) -> Gap | None:
        """Return the gap with its standard error, or None if nothing was taken in."""
        if not self._pairs:
            return None
        before, after, weights = (torch.cat(parts) for parts in zip(*self._pairs, strict=True))
        total = weights.sum()
        mean = float(((before - after) * weights).sum() / total)
        off = [weight * (old - new - mean) for old, new, weight in self._pairs]
        of_samples = _error(torch.cat(off), total) if self.by_samples else None
        of_batches = _error(torch.stack([each.sum() for each in off]), total)
        return Gap(
            float((before * weights).sum() / total),
            float((after * weights).sum() / total),
            *self._chance(of_samples, of_batches),
        )

    def _chance(
        self, of_samples: float | None, of_batches: float | None
    ) -> tuple[float | None, float | None]:
        """The standard error and the doubt, from the errors between samples and between batches."""
        known = [error for error in (of_samples, of_batches) if error is not None]
        if not known:
            return None, None
        error = max(known)
        if of_samples is not None and of_batches is not None:
            free = self.num_batches - 1
            few = self.num_batches < _FEW_BATCHES
            both = math.hypot(of_batches, math.sqrt(min(1.0, _PRIOR / free)) * of_samples)
            error = max(both, of_samples) if few else of_batches
        bounds = [] if of_samples is None else [_MOST * error]
        if of_batches is not None:
            helped = of_samples is not None and self.num_batches < _FEW_BATCHES
            free = self.num_batches - 1 + (int(_PRIOR) if helped else 0)
            sure = max(SURE, student(_RARE, free)) if helped else student(SURE, free)
            bounds.append(sure * error)
        return error, min(bounds)


def _error(off: Tensor, total: Tensor) -> float | None:
    """A weighted mean's standard error, from its units' weighted distances from it; None for one unit."""
    if len(off) < 2:
        return None
    return math.sqrt(float(off.square().sum() / total.square()) * len(off) / (len(off) - 1))
