"""How far the distribution that a unit sees moves in training: the notes' internal covariate shift."""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from convscope.checkup.observed.run import Percentiles

_EARLY = 0.25


def shift(rows: Sequence[Percentiles], layer: str | None = None) -> dict[str, float]:
    """Return how far a unit's percentiles move over training, in widths of its last distribution.

    With the 15th, 50th and 85th percentile of what the unit puts out at steps 1 … T, and the width
    w = 85th − 15th at T: ``"median shift"`` is the mean of |median(t) − median(T)| / w over the steps
    recorded, ``"width change"`` the mean of |ln(width(t) / w)|, and ``"step shift"`` the mean of
    |median(t) − median(t − 1)| / w between neighbours. The first quarter of the steps is left out: weights
    that fall into place there aren't what the claim is about.

    Args:
        rows: of a run, :attr:`convscope.train.Run.percentiles`.
        layer: path of the layer; None: the last one that has a row of outputs.

    Returns:
        The three numbers; empty if there is no such row, or its last width is 0.

    Source: Ioffe and Szegedy 2015, figure 1 (b) and (c), who show the three percentiles.
    """
    chosen = [row for row in rows if row.of == "output" and (layer is None or row.path == layer)]
    if not chosen:
        return {}
    row = chosen[-1]
    start = next(i for i, step in enumerate(row.steps) if step >= _EARLY * row.steps[-1])
    medians = row.median[start:]
    widths = [high - low for low, high in zip(row.low[start:], row.high[start:], strict=True)]
    if len(medians) < 2 or not min(widths) > 0:
        return {}
    last = widths[-1]
    return {
        "median shift": fmean(abs(median - medians[-1]) / last for median in medians[:-1]),
        "width change": fmean(abs(math.log(width / last)) for width in widths[:-1]),
        "step shift": fmean(abs(later - earlier) / last for earlier, later in pairwise(medians)),
    }
