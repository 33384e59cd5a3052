"""How far the distribution that a unit reads moves in training: the notes' internal covariate shift."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from convscope.checkup.observed.run import Percentiles

_ONE_BY_ONE = 10  # the first steps are all recorded; counted in, they would weigh as much as all the others


def shift(rows: Sequence[Percentiles], layers: Sequence[str]) -> dict[str, float]:
    """Return how far the 15th, 50th and 85th percentile of what a unit reads move over training.

    From the tenth step on, over the records at steps t, the last of them T, and over the three percentiles
    p: ``"drift"`` is the mean of |p(t) − p(T)|, ``"step drift"`` the mean of |p(t) − p(t′)| between
    neighbours, both in the unit of the values, which the non-linearity behind them gives a meaning (a
    sigmoid saturates at some ±4 whatever it reads); ``"width"`` is the 85th minus the 15th percentile at T,
    and ``"relative drift"`` the drift in widths, which has a meaning for the layer behind.

    Args:
        rows: of a run, :attr:`convscope.train.Run.percentiles`.
        layers: paths of layers; the first that the rows have is taken.

    Returns:
        The four numbers; empty if there is no such layer, or fewer than two records.

    Source: Ioffe and Szegedy 2015, figure 1 (b) and (c), who show the three percentiles.
    """
    outputs = {row.path: row for row in rows if row.of == "output"}
    row = next((outputs[path] for path in layers if path in outputs), None)
    if row is None:
        return {}
    kept = [place for place, step in enumerate(row.steps) if step >= _ONE_BY_ONE]
    if len(kept) < 2:
        return {}
    curves = [[curve[place] for place in kept] for curve in (row.low, row.median, row.high)]
    drift = fmean(abs(value - curve[-1]) for curve in curves for value in curve[:-1])
    width = row.high[-1] - row.low[-1]
    found = {
        "drift": drift,
        "step drift": fmean(abs(later - earlier) for curve in curves for earlier, later in pairwise(curve)),
        "width": width,
    }
    return found | {"relative drift": drift / width} if width > 0 else found
