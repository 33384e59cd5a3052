"""A fold's ledger made short: batch norms that stayed for like reasons, and many that went, by their parts.

Reasons name the values and layers of each place (``"features.relu1#1 needs …, in 3 of 64 channels"``); they
are alike if only such names and numbers differ.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from convscope.fold.ledger import Ledger, LedgerEntry

_T = TypeVar("_T")
_MOST_NAMES = 8
_PLACES = re.compile(r"[\w.]*#[\w.:]*|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.]*\w)|\w+(?:\.\w+)+")
_NUMBERS = re.compile(r"\d+")


@dataclass(frozen=True)
class Block:
    """Batch norms that are gone, of one part of the network.

    Attributes:
        path: of the part; the address of the batch norm where it is the only one.
        entries: in the order in which they run.
    """

    path: str
    entries: tuple[LedgerEntry, ...]

    def count(self, verdict: str) -> int:
        """The number of entries with a verdict."""
        return sum(entry.verdict == verdict for entry in self.entries)

    def largest(self, field: str) -> float | None:
        """The largest number in a field of the entries; None if there is none."""
        return max((n for entry in self.entries if (n := getattr(entry, field)) is not None), default=None)


def left(ledger: Ledger) -> tuple[LedgerEntry, ...]:
    """Return the entries of which something is still computed."""
    return tuple(entry for entry in ledger.entries if entry.verdict in ("kept", "partial"))


def gone(ledger: Ledger) -> tuple[LedgerEntry, ...]:
    """Return the entries of which nothing is left to compute."""
    return tuple(entry for entry in ledger.entries if entry.verdict in ("folded", "merged"))


def words(entry: LedgerEntry) -> tuple[str, str, str]:
    """Return what :func:`by_reason` goes by."""
    return entry.verdict, entry.reason, entry.remedy


def by_reason(entries: Iterable[_T], words: Callable[[_T], tuple[str, str, str]]) -> list[list[_T]]:
    """Return entries in groups of one verdict and like reasons: kept before partial, large groups first.

    Args:
        entries: ledger entries, or whatever stands for them.
        words: an entry's verdict, reason and remedy.

    Example:
        >>> entries = [LedgerEntry(f"bn{i}#1", "kept", reason=f"{i} operators read it") for i in (2, 3)]
        >>> [len(group) for group in by_reason(entries, words)]
        [2]
    """
    groups: dict[tuple[str, ...], list[_T]] = {}
    for entry in entries:
        verdict, reason, remedy = words(entry)
        key = (verdict, _PLACES.sub("…", reason), _PLACES.sub("…", remedy))
        groups.setdefault(key, []).append(entry)
    return [groups[key] for key in sorted(groups, key=lambda key: (key[0], -len(groups[key])))]


def blocks(entries: Sequence[LedgerEntry], most: int) -> tuple[Block, ...]:
    """Return entries by the parts of the network that they are in: the smallest parts that are few enough.

    Example:
        >>> entries = [LedgerEntry(f"layer{i}.{j}.bn#1", "folded") for i in (1, 2) for j in (0, 1)]
        >>> [(block.path, len(block.entries)) for block in blocks(entries, most=3)]
        [('layer1', 2), ('layer2', 2)]
    """
    deepest = max((entry.address.count(".") for entry in entries), default=0)
    for depth in range(deepest + 1, -1, -1):
        found: dict[str, list[LedgerEntry]] = {}
        for entry in entries:
            found.setdefault(".".join(entry.address.split("#")[0].split(".")[:depth]), []).append(entry)
        if len(found) <= most:
            break
    return tuple(
        Block(members[0].address if len(members) == 1 else path or "the whole network", tuple(members))
        for path, members in found.items()
    )


def names(addresses: Iterable[str]) -> str:
    """Return addresses as a text; of many, those that differ in numbers alone as one with stars.

    Example:
        >>> names(f"layer{i}.{j}.bn1#1" for i in (1, 2) for j in range(8))
        'layer*.*.bn1#1 (16 times)'
    """
    addresses = tuple(addresses)
    if len(addresses) <= _MOST_NAMES:
        return ", ".join(addresses)
    alike: dict[str, list[str]] = {}
    for address in addresses:
        alike.setdefault(_NUMBERS.sub("*", address), []).append(address)
    return ", ".join(_starred(members) for members in alike.values())


def _starred(members: list[str]) -> str:
    """Addresses that differ in their numbers, as one: a star where they do."""
    numbers = list(zip(*map(_NUMBERS.findall, members), strict=True))
    shown = iter([column[0] if len(set(column)) == 1 else "*" for column in numbers])
    text = _NUMBERS.sub(lambda _: next(shown), members[0])
    return text if len(members) == 1 else f"{text} ({len(members)} times)"
