"""Sets of whole numbers as few ranges: which batches are done, which are left, and who takes them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Ranges:
    """A set of whole numbers.

    Attributes:
        spans: (start, stop) of each run of numbers, ascending, with gaps between them.

    Example:
        >>> done = Ranges.of([(0, 3), (5, 7)]) | Ranges.of([(3, 4)])
        >>> done.spans, list(done.gaps(9).spans), 6 in done
        (((0, 4), (5, 7)), [(4, 5), (7, 9)], True)
    """

    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, spans: Iterable[tuple[int, int]]) -> "Ranges":
        """Return the union of some spans, in any order, overlapping or empty ones too."""
        joined: list[tuple[int, int]] = []
        for start, stop in sorted(span for span in spans if span[0] < span[1]):
            if joined and start <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
            else:
                joined.append((start, stop))
        return cls(tuple(joined))

    def __or__(self, other: "Ranges") -> "Ranges":
        return Ranges.of((*self.spans, *other.spans))

    def __contains__(self, number: int) -> bool:
        return any(start <= number < stop for start, stop in self.spans)

    def __iter__(self) -> Iterator[int]:
        for start, stop in self.spans:
            yield from range(start, stop)

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self.spans)

    def meets(self, other: "Ranges") -> bool:
        """Return whether the two have a number in common."""
        return len(self | other) < len(self) + len(other)

    def gaps(self, end: int) -> "Ranges":
        """Return the numbers from 0 to ``end − 1`` that aren't in the set."""
        starts = (0, *(stop for _, stop in self.spans))
        stops = (*(start for start, _ in self.spans), end)
        return Ranges.of((start, min(stop, end)) for start, stop in zip(starts, stops))

    def parts(self, count: int) -> list["Ranges"]:
        """Return the set in ``count`` parts of equal size, give or take one, each as contiguous as can be."""
        size = len(self)
        edges = [size * part // count for part in range(count + 1)]
        return [self._between(*edge) for edge in pairwise(edges)]

    def _between(self, first: int, last: int) -> "Ranges":
        """The numbers at places ``first`` to ``last − 1`` of the set in ascending order."""
        taken, place = [], 0
        for start, stop in self.spans:
            begin, end = max(first - place, 0), min(last - place, stop - start)
            taken.append((start + begin, start + end))
            place += stop - start
        return Ranges.of(taken)
