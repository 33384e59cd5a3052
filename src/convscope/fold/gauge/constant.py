"""Channels of which a gain γ = 0 has made constants, which the layers behind them may take in.

Where s = 0, a batch norm writes y = t whatever it reads. If all readers of y are layers, they can do without:
they read whatever stands there with weights of 0 and add what the constant was worth to their biases. Then
nothing is asked of what the batch norm reads. Where a layer before can write the constant, it does.

Limits: the constant is t all the way, so that operators that change it (a sum, a ReLU unless it is 0) are in
the way; as are maxima, which may tell where they were, and products, which may grow.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from convscope.fold.gauge.labels import GROUND
from convscope.fold.gauge.links import Link
from convscope.fold.gauge.system import System

_NEVER = ("fixed", "unit scale", "constant")
_ONLY_ZERO = ("no shift", "padded")


def constants(system: System, links: Sequence[Link]) -> list[npt.NDArray[np.bool_]]:
    """Return for each link at which of its positions only layers read y, and y is a constant.

    Args:
        system: what is asked of the labels.
        links: the batch norms.
    """
    found = [link.scale == 0 for link in links]
    if not any(where.any() for where in found):
        return found
    barred, passes_zero_only = np.zeros((2, system.num_labels), dtype=np.bool_)
    barred[GROUND] = True
    for link in links:
        barred[link.before] = True
    for left, right in system.ties:
        barred[left] = barred[right] = True
    for relation in system.relations:
        barred[relation.labels] = True
    for demand in system.demands:
        barred[demand.labels] |= demand.kind in _NEVER
        passes_zero_only[demand.labels] |= demand.kind in _ONLY_ZERO
    return [
        where & ~barred[link.after] & ((link.shift == 0) | ~passes_zero_only[link.after])
        for where, link in zip(found, links, strict=True)
    ]
