"""Batch norms as links between labels, and what was found out about them."""

from dataclasses import dataclass, field

import numpy as np

from convscope.fold.gauge.labels import Labels
from convscope.fold.gauge.scales import Numbers


@dataclass(frozen=True)
class Link:
    """A batch norm between two vectors of labels.

    Attributes:
        before, after: (n,), labels of x and of y.
        scale, shift: (n,), s and t.
        absorbs: whether its own parameters can take gauges if it is kept.
    """

    before: Labels
    after: Labels
    scale: Numbers
    shift: Numbers
    absorbs: bool


@dataclass(frozen=True)
class Failure:
    """Why a batch norm stays.

    Attributes:
        kind: ``"fixed"``, ``"sign"``, ``"zero"`` (scales), or ``"shift"``.
        where: the positions of its vectors at which it fails.
        index: the link that fails: this one, or another one of its group.
    """

    kind: str
    where: Labels
    index: int


@dataclass
class Solution:
    """Gauges for which batch norms are identities.

    Attributes:
        folded, partial: indices of links: gone altogether; gone but for an addition.
        failures: why the others stay, and why partial ones do in part.
        scales, shifts: of all labels.
        constants: what the readers of a label take in instead of what stands there, as
            :func:`convscope.fold.gauge.constant.constants` says; NaN for all other labels.
    """

    folded: set[int] = field(default_factory=set)
    partial: set[int] = field(default_factory=set)
    failures: dict[int, Failure] = field(default_factory=dict)
    scales: Numbers = field(default_factory=lambda: np.ones(1))
    shifts: Numbers = field(default_factory=lambda: np.zeros(1))
    constants: Numbers = field(default_factory=lambda: np.full(1, np.nan))
