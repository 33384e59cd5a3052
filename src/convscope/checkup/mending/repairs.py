"""The table of repairs that are safe: by fault, in the order in which they are made.

Settings come first, since the statistics that are estimated after them depend on them; layers are frozen
last, by a check-up of what the others have made. A repair either makes no difference to what the network
computes at test time, or replaces statistics by those of the data, if there is enough of it and they prove
better. What needs a decision (other batches, other layers, training on) isn't in here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from convscope.checkup.mending.result import Left, Mended
from convscope.checkup.mending.workshop import Workshop
from convscope.core.finding import Finding

Repairer = Callable[[Workshop, tuple[Finding, ...]], Iterator[Mended | Left]]
"""Repairs findings on the workshop's copy; yields what it did, and which findings it had to leave."""


@dataclass(frozen=True)
class Repair:
    """One repair, and the faults that it is for.

    Attributes:
        faults: whose findings it is called with.
        make: the function.
        last: whether it is made after all others, with the findings of a check-up of what they have made.
    """

    faults: tuple[str, ...]
    make: Repairer
    last: bool = False


_REPAIRS: list[Repair] = []


def repairs(*faults: str, last: bool = False) -> Callable[[Repairer], Repairer]:
    """Register the decorated function as the repair of faults; called once with all of their findings.

    Args:
        faults: their ids.
        last: see :class:`Repair`.
    """

    def register(repairer: Repairer) -> Repairer:
        _REPAIRS.append(Repair(faults, repairer, last))
        return repairer

    return register


def all_repairs() -> tuple[Repair, ...]:
    """Return the repairs in the order in which they are made."""
    return tuple(sorted(_REPAIRS, key=lambda repair: repair.last))


def repairable_faults() -> tuple[str, ...]:
    """Return the faults that there is a safe repair of.

    Example:
        >>> "redundant-bias" in repairable_faults(), "micro-batch" in repairable_faults()
        (True, False)
    """
    return tuple(dict.fromkeys(fault for repair in _REPAIRS for fault in repair.faults))
