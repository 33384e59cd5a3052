"""What the operators of a recorded run ask of gauges: labels, and the demands and equations between them.

A value's *gauge* is how the folded network may differ from the network: where this computes v, that computes
a · v + b, with a scale a and a shift b per label. Gauges are 1 and 0 unless a batch norm is folded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from convscope.fold.gauge.labels import GROUND, Labels
from convscope.fold.gauge.scales import Numbers

Kind = Literal[
    "fixed", "unit scale", "no shift", "rather no shift", "positive", "nonzero", "constant", "padded"
]
"""``fixed``: a = 1 and b = 0; ``unit scale``: a = 1; ``no shift``: b = 0; ``rather no shift``: b = 0 if that
doesn't keep any batch norm; ``positive``: a > 0; ``nonzero``: a ≠ 0. And of channels that are constants, as
their gain is 0, ``constant``: that nothing else stands there; ``padded``: the same, unless it is 0."""


@dataclass(frozen=True)
class Demand:
    """What something asks of the gauges of some labels.

    Attributes:
        kind: see :data:`Kind`.
        labels: of shape (n,), each once.
        why: who asks for it and why, a phrase for the ledger.
    """

    kind: Kind
    labels: Labels
    why: str


@dataclass(frozen=True)
class Relation:
    """A linear equation between shifts for every position: Σ weights · b = constant · (1 − a).

    Attributes:
        labels: (terms, positions).
        weights: (terms, positions).
        constant: (positions,).
        of: (positions,): whose scale a is.
        why: who asks for it.
    """

    labels: Labels
    weights: Numbers
    constant: Numbers
    of: Labels
    why: str


@dataclass
class System:
    """Everything that is asked of the gauges of a recorded run, batch norms apart.

    Attributes:
        num_labels: how many labels have been given out; the first is ``GROUND``.
        ties: pairs of labels of one scale.
        demands: see :class:`Demand`.
        relations: see :class:`Relation`.
        sums: labels whose shifts are sums of others', by a relation.
    """

    num_labels: int = 1
    ties: list[tuple[Labels, Labels]] = field(default_factory=list)
    demands: list[Demand] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    sums: list[Labels] = field(default_factory=list)

    def fresh(self, shape: Sequence[int]) -> Labels:
        """Return an array of new labels."""
        size = int(np.prod(shape, dtype=np.int64))
        labels = np.arange(self.num_labels, self.num_labels + size, dtype=np.int64).reshape(shape)
        self.num_labels += size
        return labels

    def demand(self, kind: Kind, labels: Labels, why: str) -> None:
        """Ask something of labels; ``GROUND`` satisfies everything."""
        each = np.unique(labels)
        each = each[each != GROUND]
        if each.size:
            self.demands.append(Demand(kind, each, why))

    def tie(self, left: Labels, right: Labels, why: str) -> None:
        """Let the scales of two arrays of labels be equal, place by place; ``GROUND`` has the scale 1."""
        left, right = (side.reshape(-1) for side in np.broadcast_arrays(left, right))
        given = (left == GROUND) | (right == GROUND)
        self.demand("unit scale", np.maximum(left, right)[given], why)
        apart = (left != right) & ~given
        if apart.any():
            self.ties.append((left[apart], right[apart]))

    def combined(
        self, terms: Sequence[tuple[Labels, Numbers | float]], constant: Numbers | float, why: str
    ) -> Labels:
        """Return labels of a linear combination of values of one scale, plus a constant.

        Args:
            terms: labels and weights, which broadcast against one another.
            constant: what is added; it broadcasts too.
            why: who asks for it.
        """
        arrays = np.broadcast_arrays(*(labels for labels, _ in terms), *(w for _, w in terms), constant)
        labels = arrays[: len(terms)]
        weights, number = arrays[len(terms) : -1], arrays[-1]
        out = self.fresh(labels[0].shape)
        self.sums.append(out.reshape(-1))
        for other in labels:
            self.tie(out, other, f"{why} adds what can't be rescaled")
        self.relations.append(
            Relation(
                np.stack([out.reshape(-1), *(each.reshape(-1) for each in labels)]),
                np.stack([np.ones(out.size), *(-each.reshape(-1).astype(float) for each in weights)]),
                number.reshape(-1).astype(float),
                out.reshape(-1),
                why,
            )
        )
        return out

    def alike(self, left: Labels, right: Labels, why: str) -> None:
        """Let the shifts of two vectors of labels be equal, place by place."""
        apart = left != right
        if apart.any():
            labels = np.stack([left[apart], right[apart]])
            weights = np.stack([np.ones(labels.shape[1]), -np.ones(labels.shape[1])])
            zeros = np.zeros(labels.shape[1])
            self.relations.append(Relation(labels, weights, zeros, labels[0], why))
