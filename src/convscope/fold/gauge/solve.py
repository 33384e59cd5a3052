"""The most batch norms that can become identities, and the gauges for which they do.

A batch norm y = s x + t becomes an identity where a(x) = s · a(y) and b(x) = a(y) · t + b(y). One after the
other they're taken in, if their equations agree with all that is asked already. What is left is tried once
more for its scale alone, so that only an addition stays.

Limits: the order is that of the run, but for batch norms that clash with more others than those do. Where not
all can fold, another order might fold more.
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from convscope.fold.gauge.constant import constants
from convscope.fold.gauge.labels import GROUND, Labels
from convscope.fold.gauge.links import Failure, Link, Solution
from convscope.fold.gauge.order import ordered
from convscope.fold.gauge.scales import Clash, Numbers, Scales
from convscope.fold.gauge.shifts import Dependent, Equation, Shifts
from convscope.fold.gauge.system import System

_SUM_COST = 1000.0


def solve(
    system: System, links: Sequence[Link], groups: Iterable[Sequence[int]], *, partial: bool = True
) -> Solution:
    """Return the gauges which fold the most batch norms.

    Args:
        system: what is asked of the labels.
        links: the batch norms; those that no group mentions are kept.
        groups: indices of links that fold together or not at all (the calls of one module).
        partial: whether to move scales where shifts have to stay.
    """
    left = [tuple(group) for group in groups]
    failures: dict[int, Failure] = {}
    while True:
        solver = _Solver(system, links, left)
        solver.found.failures.update(failures)
        stuck = solver.run(partial=partial)
        if not stuck:
            return solver.solution()
        left = [group for group in left if not stuck.intersection(group)]
        failures.update((index, solver.found.failures[index]) for index in stuck)


class _Solver:
    """One attempt, in which the batch norms that no group mentions stay."""

    def __init__(self, system: System, links: Sequence[Link], groups: Sequence[tuple[int, ...]]) -> None:
        self.system, self.links, self.groups = system, links, groups
        mentioned = {index for group in groups for index in group}
        self.kept = [link for index, link in enumerate(links) if index not in mentioned]
        self.constant = constants(system, links)
        self.equal = [_without(link, where) for link, where in zip(links, self.constant, strict=True)]
        self.found = Solution()
        self.unit: list[Labels] = []  # labels whose scale is 1 for the sake of constants that are added
        self.pinned: list[Labels] = []
        while not self._begin():
            pass

    def run(self, *, partial: bool) -> set[int]:
        """Take in groups; return the links that stay though others rely on their taking gauges in."""
        roots, _ = self.scales.find(np.arange(self.system.num_labels))
        groups = ordered(self.system, self.equal, self.groups, roots)
        left = [group for group in groups if not self._fold(group)]
        for group in left:
            if not (partial and self._fold_scales(group)):
                try:
                    for index in group:
                        self.scales.require(self.links[index].before)
                except Clash:
                    return set(group)
        stuck = {i for group in left for i in group if not self.links[i].absorbs} - self.found.partial
        if not stuck:
            self._return_constants()
        return stuck

    def solution(self) -> Solution:
        """Return what was found, with its numbers."""
        scales = self.scales.values()
        shifts = self._shifts()
        for equation in self._equations(scales):
            shifts.take_in(equation)
        for index in sorted(self.found.folded):
            shifts.take_in(_shift_equation(self.equal[index], scales))
        for demand in self.system.demands:
            if demand.kind == "rather no shift":
                with contextlib.suppress(Dependent):
                    shifts.take_in(_no_shift(demand.labels))
        self.found.scales, self.found.shifts = scales, shifts.values()
        self.found.constants = np.full(self.system.num_labels, np.nan)
        for index in self.found.folded | self.found.partial:
            link, where = self.links[index], self.constant[index]
            self.found.constants[link.after[where]] = link.shift[where]
        return self.found

    def _begin(self) -> bool:
        """Take in what the operators ask; False if constants that are added ask for more."""
        self.scales = Scales(self.system.num_labels)
        for kind in ("fixed", "unit scale"):
            for labels in self._asked(kind):
                self.scales.tie(labels, np.full_like(labels, GROUND))
        if self.system.ties:
            left, right = (np.concatenate(side) for side in zip(*self.system.ties, strict=True))
            self.scales.tie(left, right)
        for labels in self._asked("nonzero"):
            self.scales.require(labels)
        for labels in self._asked("positive"):
            self.scales.require(labels, positive=True)
        self.shifts = self._shifts()
        is_whole = True
        given = self.scales.find(np.arange(self.system.num_labels))[0] == GROUND
        for relation, equation in zip(self.system.relations, self._equations(None, given), strict=True):
            try:
                self.shifts.take_in(equation)
            except Dependent as error:
                where = error.where
                if (relation.constant[where] == 0).any():  # too long for an expression
                    self.pinned.append(np.unique(relation.labels[:, where]))
                else:
                    self.unit.append(np.unique(relation.of[where]))
                is_whole = False
        return is_whole

    def _asked(self, kind: str) -> list[Labels]:
        """The labels of which something is asked, all in one vector."""
        asked = [demand.labels for demand in self.system.demands if demand.kind == kind]
        if kind == "fixed":
            rigid = [link for link in self.kept if not link.absorbs]
            asked += [labels for link in rigid for labels in (link.before, link.after)]
            asked += self.pinned
        elif kind == "nonzero":
            asked += [link.before for link in self.kept if link.absorbs]
        elif kind == "unit scale":
            asked += self.unit
        return [np.unique(np.concatenate(asked))] if asked else []

    def _shifts(self) -> Shifts:
        cost = np.zeros(self.system.num_labels)
        for relation in self.system.relations:
            np.add.at(cost, relation.labels, 1.0)
        for link in self.links:
            np.add.at(cost, link.before, 1.0)
            np.add.at(cost, link.after, 1.0)
        for labels in self.system.sums:
            cost[labels] += _SUM_COST
        shifts = Shifts(cost)
        for kind in ("fixed", "no shift"):
            for labels in self._asked(kind):
                shifts.pin(labels)
        return shifts

    def _equations(
        self, scales: Numbers | None, given: npt.NDArray[np.bool_] | None = None
    ) -> Iterable[Equation]:
        """The relations, with their numbers, or for their structure alone; ``given``: whose scale is 1."""
        for relation in self.system.relations:
            if scales is not None:
                constant = relation.constant * (1 - scales[relation.of])
                generic = np.zeros(constant.shape, dtype=np.bool_)
            else:
                assert given is not None
                constant = np.zeros(relation.constant.shape)
                generic = (relation.constant != 0) & ~given[relation.of]
            yield Equation(relation.labels, relation.weights, constant, generic)

    def _fold(self, group: Sequence[int]) -> bool:
        """Take in all of a group, or nothing."""
        scales, shifts = self.scales.mark(), self.shifts.mark()
        distinct = {(self.equal[i].before.tobytes(), self.equal[i].after.tobytes()): i for i in group}
        for index in distinct.values():
            clash = self._clash(self.equal[index])
            if clash is not None:
                self.scales.undo(scales)
                self.shifts.undo(shifts)
                self.found.failures.update(dict.fromkeys(group, Failure(*clash, index)))
                return False
        self.found.folded.update(group)
        return True

    def _fold_scales(self, group: Sequence[int]) -> bool:
        if all(self.found.failures[index].kind != "shift" for index in group):
            return False
        mark = self.scales.mark()
        try:
            for index in group:
                link = self.equal[index]
                self.scales.join(link.before, link.after, link.scale)
        except Clash:
            self.scales.undo(mark)
            return False
        self.found.partial.update(group)
        return True

    def _clash(self, link: Link) -> tuple[str, Labels] | None:
        """Take in a link; or say what it is that can't be so, and where. What was taken in then stays."""
        try:
            self.scales.join(link.before, link.after, link.scale)
        except Clash as clash:
            return clash.why, clash.where
        try:
            self.shifts.take_in(_shift_equation(link, None))
        except Dependent as dependent:
            return "shift", dependent.where
        return None

    def _return_constants(self) -> None:
        """Let constants go back into the layer before after all, where that is in nobody's way."""
        for index in sorted(self.found.folded):
            link, where = self.links[index], self.constant[index]
            if not where.any():
                continue
            scales, shifts = self.scales.mark(), self.shifts.mark()
            if self._clash(_part(link, where)) is None:
                self.equal[index], self.constant[index] = link, np.zeros_like(where)
            else:
                self.scales.undo(scales)
                self.shifts.undo(shifts)


def _without(link: Link, where: npt.NDArray[np.bool_]) -> Link:
    """A link of which nothing is asked at some of its positions: a(y) = a(y)."""
    if not where.any():
        return link
    return replace(
        link,
        before=np.where(where, link.after, link.before),
        scale=np.where(where, 1.0, link.scale),
        shift=np.where(where, 0.0, link.shift),
    )


def _part(link: Link, where: npt.NDArray[np.bool_]) -> Link:
    """A link at some of its positions."""
    return replace(
        link,
        before=link.before[where],
        after=link.after[where],
        scale=link.scale[where],
        shift=link.shift[where],
    )


def _no_shift(labels: Labels) -> Equation:
    """b(x) = 0."""
    zeros = np.zeros(labels.size)
    return Equation(labels[None], np.ones((1, labels.size)), zeros, zeros.astype(np.bool_))


def _shift_equation(link: Link, scales: Numbers | None) -> Equation:
    """b(x) − b(y) = a(y) · t."""
    ones = np.ones(link.before.size)
    constant = np.zeros(link.before.size) if scales is None else scales[link.after] * link.shift
    labels, weights = np.stack([link.before, link.after]), np.stack([ones, -ones])
    return Equation(labels, weights, constant, (link.shift != 0) & (scales is None))
