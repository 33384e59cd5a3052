"""Shifts: linear equations between labels, Σ c·b(label) = r, solved by elimination, one vector at a time.

Each equation that is taken in determines one of its labels, its pivot, by the others. A set of batch norms
can be folded only if their equations are independent of one another and of what the operators ask: then they
hold whatever the numbers are. So equations are first taken in for their structure, one batch norm after the
other; once it is known which hold, they're taken in again with their numbers.

Pivots are labels that few equations mention (the output of a branch, not the stream that it is added to), so
that equations stay short and the work linear.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convscope.fold.gauge.labels import GROUND, Labels
from convscope.fold.gauge.scales import Numbers

_ROUNDING = 1e-12
_NONZERO = 1e-9
_MOST_TERMS = 8


class Dependent(Exception):  # noqa: N818 - no error: a verdict
    """An equation says something about labels that are determined already.

    Attributes:
        where: the positions in its vectors at which it does.
    """

    def __init__(self, where: Labels) -> None:
        super().__init__("dependent")
        self.where = where


@dataclass(frozen=True)
class Equation:
    """One linear equation for every position of some vectors: Σ weights · b(labels) = constant.

    Attributes:
        labels: (terms, positions).
        weights: (terms, positions).
        constant: (positions,); what it is for the shifts to come out right.
        generic: (positions,); whether the constant may be any number, so that the equation mustn't depend on
            others, whatever ``constant`` says.
    """

    labels: Labels
    weights: Numbers
    constant: Numbers
    generic: npt.NDArray[np.bool_]


class Shifts:
    """The shifts of all labels, as far as equations determine them.

    Args:
        cost: for every label, how little it is fit to be a pivot: how many equations mention it, and more if
            it is a sum of others.
    """

    def __init__(self, cost: Numbers) -> None:
        size = cost.size
        self._cost = cost
        self._is_pivot = np.zeros(size, dtype=np.bool_)
        self._terms = np.zeros((size, _MOST_TERMS), dtype=np.int64)
        self._weights = np.zeros((size, _MOST_TERMS))
        self._constants = np.zeros(size)
        self._pivots: list[Labels] = []
        self._is_pivot[GROUND] = True  # by the equation b = 0
        self._any = np.random.default_rng(0)  # for constants that may be any: none fits by chance

    def pin(self, labels: Labels) -> None:
        """Let shifts be 0; only before any equation."""
        self._is_pivot[labels] = True

    def mark(self) -> int:
        """Return a mark that :meth:`undo` comes back to."""
        return len(self._pivots)

    def undo(self, mark: int) -> None:
        """Take back everything since a mark."""
        for pivots in self._pivots[mark:]:
            self._is_pivot[pivots] = False
        del self._pivots[mark:]

    def take_in(self, equation: Equation) -> None:
        """Take in an equation for all of its positions, or for none.

        Raises:
            Dependent: at some positions all of its labels are determined, and not to its constant.
        """
        mark = self.mark()
        try:
            self._take_in(equation)
        except Dependent:
            self.undo(mark)
            raise

    def _take_in(self, equation: Equation) -> None:
        labels, weights = equation.labels, equation.weights
        constant = np.where(
            equation.generic, self._any.normal(size=equation.constant.size), equation.constant
        )
        rest = np.arange(constant.size)
        while rest.size:
            labels, weights, constant = self._reduced(labels, weights, constant)
            done = (weights == 0).all(0)
            wrong = done & (np.abs(constant) > _NONZERO)
            if wrong.any():
                raise Dependent(rest[wrong])
            labels, weights, constant, rest = (
                labels[:, ~done],
                weights[:, ~done],
                constant[~done],
                rest[~done],
            )
            if rest.size:
                solved = self._solve(labels, weights, constant)
                labels, weights = labels[:, ~solved], weights[:, ~solved]
                constant, rest = constant[~solved], rest[~solved]

    def values(self) -> Numbers:
        """Return the shift of every label; what nothing determines is 0."""
        shifts = np.where(self._is_pivot, self._constants, 0.0)
        for pivots in reversed(self._pivots):
            terms = (self._weights[pivots] * shifts[self._terms[pivots]]).sum(1)
            shifts[pivots] = self._constants[pivots] + terms
        return shifts

    def _reduced(
        self, labels: Labels, weights: Numbers, constant: Numbers
    ) -> tuple[Labels, Numbers, Numbers]:
        """Replace determined labels by what determines them, and bring like terms together."""
        while True:
            known = self._is_pivot[labels] & (weights != 0)
            if not known.any():
                break
            factor = np.where(known, weights, 0.0)
            constant = constant - (factor * self._constants[labels]).sum(0)
            more = self._terms[labels].transpose(0, 2, 1).reshape(-1, constant.size)
            factors = (factor[:, :, None] * self._weights[labels]).transpose(0, 2, 1)
            weights = np.concatenate([np.where(known, 0.0, weights), factors.reshape(-1, constant.size)])
            labels, weights = _gathered(np.concatenate([labels, more]), weights)
        return *_gathered(labels, weights), constant

    def _solve(self, labels: Labels, weights: Numbers, constant: Numbers) -> npt.NDArray[np.bool_]:
        """Determine one label by each equation, each label once; returns which equations were used up."""
        cost = np.where(weights != 0, self._cost[labels], np.inf)
        row = cost.argmin(0)
        pivots = labels[row, np.arange(row.size)]
        _, first = np.unique(pivots, return_index=True)
        chosen = np.sort(pivots[first])
        mentioned = (weights[:, first] != 0) & _is_in(labels[:, first], chosen)
        apart = mentioned.sum(0) == 1  # no other label that is determined just now
        first = first[apart] if apart.any() else first[:1]
        used = np.zeros(row.size, dtype=np.bool_)
        used[first] = True
        pivot, at = pivots[first], weights[row[first], first]
        terms, factors = labels[:, first], -weights[:, first] / at
        factors[row[first], np.arange(first.size)] = 0.0
        terms, factors = _gathered(terms, factors)
        if terms.shape[0] > _MOST_TERMS:
            raise Dependent(first)
        self._is_pivot[pivot] = True
        self._terms[pivot], self._weights[pivot] = 0, 0.0
        self._terms[pivot, : terms.shape[0]] = terms.T
        self._weights[pivot, : terms.shape[0]] = factors.T
        self._constants[pivot] = constant[first] / at
        self._pivots.append(pivot)
        return used


def _gathered(labels: Labels, weights: Numbers) -> tuple[Labels, Numbers]:
    """Add up the weights of labels that stand in an equation twice, and drop rows of nothing."""
    order = np.argsort(np.where(weights != 0, labels, np.iinfo(np.int64).max), axis=0, kind="stable")
    labels, weights = np.take_along_axis(labels, order, 0), np.take_along_axis(weights, order, 0).copy()
    for i in range(1, labels.shape[0]):
        same = (labels[i] == labels[i - 1]) & (weights[i - 1] != 0)
        total = weights[i] + weights[i - 1]
        total[np.abs(total) <= _ROUNDING * (np.abs(weights[i]) + np.abs(weights[i - 1]))] = 0.0
        weights[i], weights[i - 1] = np.where(same, (total, np.zeros_like(total)), weights[[i, i - 1]])
    if labels.shape[0] > 1:
        order = np.argsort(weights == 0, axis=0, kind="stable")
        labels, weights = np.take_along_axis(labels, order, 0), np.take_along_axis(weights, order, 0)
        filled = max(1, int((weights != 0).any(1).sum()))
        labels, weights = labels[:filled], weights[:filled]
    return labels, weights


def _is_in(labels: Labels, ordered: Labels) -> npt.NDArray[np.bool_]:
    """Whether labels are among some that are in order."""
    nearest = np.minimum(np.searchsorted(ordered, labels), ordered.size - 1)
    found: npt.NDArray[np.bool_] = ordered[nearest] == labels
    return found
