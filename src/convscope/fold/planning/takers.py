"""Which layers took a batch norm in: those whose gauges its fold has changed."""

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

import numpy as np

from convscope.fold.gauge.labels import GROUND, Labels
from convscope.fold.gauge.links import Link, Solution

T = TypeVar("T")

End = tuple[str, Labels]
"""An address, and the labels that it writes or reads."""


class Takers:
    """The layers and kept batch norms around the values of a run.

    Args:
        component: for every label, that of the labels which are tied to it without batch norms between.
        links: the batch norms.
        solution: which of them are gone, and the gauges.
    """

    def __init__(self, component: Labels, links: Sequence[Link], solution: Solution) -> None:
        self._component = component
        self._links = links
        self._solution = solution
        self._known: dict[bytes, tuple[str, ...]] = {}
        gone = sorted(solution.folded | solution.partial)
        self._gone_before = _Index([(index, self._components(links[index].after)) for index in gone])
        self._gone_after = _Index([(index, self._components(links[index].before)) for index in gone])
        self._writers, self._readers = _Index[str]([]), _Index[str]([])

    def add(self, writers: Iterable[End], readers: Iterable[End]) -> None:
        """Say what the layers write and read."""
        self._writers, self._readers = (
            _Index([(address, self._components(labels)) for address, labels in ends])
            for ends in (writers, readers)
        )

    def of(self, index: int) -> tuple[str, ...]:
        """Return the addresses of the layers which took a batch norm in, writers first."""
        link = self._links[index]
        before = self._writing(index) if self._is_changed(link.before) else ()
        if not self._is_changed(link.after):
            return before
        return tuple(dict.fromkeys((*before, *self._on(index, set()))))

    def _writing(self, index: int) -> tuple[str, ...]:
        """The layers that write what a batch norm reads; the batch norms of one stream share the answer."""
        key = self._components(self._links[index].before).tobytes()
        if key not in self._known:
            self._known[key] = tuple(dict.fromkeys(self._back(index, set())))
        return self._known[key]

    def _back(self, index: int, seen: set[int]) -> list[str]:
        seen.add(index)
        components = self._components(self._links[index].before)
        found = self._writers.at(components)
        for other in self._gone_before.at(components):
            if other not in seen:
                found += self._back(other, seen)
        return found

    def _on(self, index: int, seen: set[int]) -> list[str]:
        """The layers that read what a batch norm writes, or what others that are gone made of it."""
        seen.add(index)
        components = self._components(self._links[index].after)
        found = self._readers.at(components)
        for other in self._gone_after.at(components):
            if other not in seen and self._is_changed(self._links[other].after):
                found += self._on(other, seen)
        return found

    def _is_changed(self, labels: Labels) -> bool:
        found = self._solution
        scales, shifts, constants = (each[labels] for each in (found.scales, found.shifts, found.constants))
        return bool((scales != 1).any() or (shifts != 0).any() or not np.isnan(constants).all())

    def _components(self, labels: Labels) -> Labels:
        found: Labels = np.unique(self._component[labels])
        above: Labels = found[found != GROUND]
        return above


class _Index(Generic[T]):
    """Keys by the components that each of them has."""

    def __init__(self, rows: Sequence[tuple[T, Labels]]) -> None:
        self._keys = [key for key, _ in rows]
        sizes = [components.size for _, components in rows]
        owners = np.repeat(np.arange(len(rows)), sizes)
        components = np.concatenate([np.empty(0, np.int64), *(each for _, each in rows)])
        order = np.argsort(components, kind="stable")
        self._components, self._owners = components[order], owners[order]

    def at(self, components: Labels) -> list[T]:
        """Return the keys which have one of some components, in their order."""
        start = np.searchsorted(self._components, components, "left")
        stop = np.searchsorted(self._components, components, "right")
        longest = int((stop - start).max(initial=0))
        rows = [self._owners[(start + i)[start + i < stop]] for i in range(longest)]
        found = np.unique(np.concatenate([np.empty(0, np.int64), *rows]))
        return [self._keys[int(owner)] for owner in found]
