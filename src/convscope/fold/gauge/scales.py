"""Scales: a(x) = ratio · a(y) for pairs of labels, solved by joining labels into trees.

The scale of a label is a number times that of its tree's root; the root of the tree which ``GROUND`` belongs
to is 1. Zeros go one way only: a label may be 0 times another, which says that nothing of the value is left
(a gain γ = 0).

All work is on whole vectors of labels, those of a batch norm's channels for instance, and can be undone.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from convscope.fold.gauge.labels import GROUND, Labels

Numbers = npt.NDArray[np.float64]

_ROUNDING = 1e-12


class Clash(Exception):  # noqa: N818 - no error: a verdict
    """Scales can't be as asked.

    Attributes:
        where: the positions at which they can't, in the vectors that were given.
        why: ``"fixed"`` (both are given already), ``"sign"`` (a positive one would be negative), or
            ``"zero"`` (one would vanish that may not).
    """

    def __init__(self, where: Labels, why: str) -> None:
        super().__init__(why)
        self.where = where
        self.why = why


class Scales:
    """The scales of all labels, as far as they're tied to one another.

    Args:
        num_labels: how many labels there are.
    """

    def __init__(self, num_labels: int) -> None:
        self._parent: Labels = np.arange(num_labels, dtype=np.int64)
        self._ratio: Numbers = np.ones(num_labels)
        self._sign = np.zeros(num_labels, dtype=np.int8)  # of a root: the one that it must have, or 0
        self._nonzero = np.zeros(num_labels, dtype=np.bool_)  # of a root: whether it may not vanish
        self._sign[GROUND], self._nonzero[GROUND] = 1, True
        self._log: list[tuple[npt.NDArray[Any], Labels, npt.NDArray[Any]]] = []

    def tie(self, left: Labels, right: Labels) -> None:
        """Make scales equal; only before anything else is asked, for all pairs at once."""
        root = self._parent
        while True:
            a, b = root[left], root[right]
            if (a == b).all():
                return
            np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
            while (root[root] != root).any():
                root[:] = root[root]

    def find(self, labels: Labels) -> tuple[Labels, Numbers]:
        """Return the roots of labels, and their scales over those of the roots."""
        roots, ratio = self._parent[labels], self._ratio[labels].copy()
        while True:
            above = self._parent[roots]
            if (above == roots).all():
                return roots, ratio
            ratio *= self._ratio[roots]
            roots = above

    def values(self) -> Numbers:
        """Return the scale of every label; what nothing determines is 1."""
        roots, ratio = self.find(np.arange(self._parent.size, dtype=np.int64))
        free = np.where(self._sign < 0, -1.0, 1.0)
        scales: Numbers = ratio * free[roots]
        return scales

    def mark(self) -> int:
        """Return a mark that :meth:`undo` comes back to."""
        return len(self._log)

    def undo(self, mark: int) -> None:
        """Take back everything since a mark."""
        while len(self._log) > mark:
            array, where, before = self._log.pop()
            array[where] = before

    def require(self, labels: Labels, *, positive: bool = False) -> None:
        """Let scales not vanish, or be positive.

        Raises:
            Clash: one does, or isn't; what was asked before stands.
        """
        mark = self.mark()
        roots, ratio = self.find(labels)
        sign = np.sign(ratio).astype(np.int8)
        if (sign == 0).any():
            raise Clash(np.flatnonzero(sign == 0), "zero")
        self._set(self._nonzero, roots, True)
        if not positive:
            return
        against = self._sign[roots] * sign < 0
        if not against.any():
            self._set(self._sign, roots, sign)
            against = self._sign[roots] != sign  # one root, and two signs
        if against.any():
            self.undo(mark)
            raise Clash(np.flatnonzero(against), "sign")

    def join(self, left: Labels, right: Labels, ratio: Numbers) -> None:
        """Let a(left) = ratio · a(right), for all pairs or for none.

        Raises:
            Clash: that can't be; what was asked before stands.
        """
        mark = self.mark()
        try:
            self._join(left, right, ratio)
        except Clash:
            self.undo(mark)
            raise
        for labels in (left, right):
            roots, own = self.find(labels)
            self._set(self._ratio, labels, np.where(roots == labels, 1.0, own))
            self._set(self._parent, labels, roots)

    def _join(self, left: Labels, right: Labels, ratio: Numbers) -> None:
        rest = np.arange(left.size)
        while rest.size:
            roots, own = self.find(left[rest])
            others, wanted = self.find(right[rest])
            wanted = wanted * ratio[rest]  # now own · a(roots) = wanted · a(others)
            zero = (own == 0) & (wanted != 0)
            if zero.any():
                raise Clash(rest[zero], "zero")
            same = roots == others
            apart = same & (np.abs(own - wanted) > _ROUNDING * np.maximum(np.abs(own), np.abs(wanted)))
            if apart.any():
                raise Clash(rest[apart], "fixed")
            open_ = ~same & (own != 0)
            rest, roots, own, others, wanted = (v[open_] for v in (rest, roots, own, others, wanted))
            if rest.size:
                linked = self._link(rest, (roots, own), (others, wanted))
                rest = rest[~linked]

    def _link(
        self, where: Labels, left: tuple[Labels, Numbers], right: tuple[Labels, Numbers]
    ) -> npt.NDArray[np.bool_]:
        """Hang left roots beneath right ones (ground stays a root); returns for which pairs it was done."""
        (roots, own), (others, wanted) = left, right
        turned = roots == GROUND
        if (turned & (wanted == 0)).any():
            raise Clash(where[turned & (wanted == 0)], "fixed")
        child, parent = np.where(turned, others, roots), np.where(turned, roots, others)
        up, down = np.where(turned, own, wanted), np.where(turned, wanted, own)
        children, first = np.unique(child, return_index=True)
        nearest = np.minimum(np.searchsorted(children, parent), children.size - 1)
        hung_at = np.where(children[nearest] == parent, first[nearest], where.size)
        now = np.zeros(where.size, dtype=np.bool_)
        now[first] = True
        now &= hung_at == where.size  # what is asked of a child must reach a root
        if not now.any():
            now[first[0]] = True
        child, parent, ratio, where = child[now], parent[now], up[now] / down[now], where[now]
        vanishing = self._nonzero[child] & (ratio == 0)
        if vanishing.any():
            raise Clash(where[vanishing], "zero")
        sign = self._sign[child] * np.sign(ratio).astype(np.int8)
        self._set(self._parent, child, parent)
        self._set(self._ratio, child, ratio)
        self._set(self._nonzero, parent[self._nonzero[child]], True)
        against = (sign != 0) & (self._sign[parent] * sign < 0)
        if not against.any():
            self._set(self._sign, parent[sign != 0], sign[sign != 0])
            against = (sign != 0) & (self._sign[parent] != sign)
        if against.any():
            raise Clash(where[against], "sign")
        return now

    def _set(self, array: npt.NDArray[Any], where: Labels, value: Any) -> None:
        self._log.append((array, where.copy(), array[where]))
        array[where] = value
