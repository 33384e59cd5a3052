"""How far a scan has come: which batches are done, and what they had to show."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from convscope.data import Damage
from convscope.sight.collecting.ranges import Ranges
from convscope.sight.collecting.tally import Tally
from convscope.sight.units.maps import UnitMaps


@dataclass
class Progress:
    """What a scan knows after some batches.

    Attributes:
        tallies: by the units' address.
        done: numbers of the batches.
        num_images: looked at in them.
        damaged: images that were skipped.
    """

    tallies: dict[str, Tally]
    done: Ranges = field(default_factory=Ranges)
    num_images: int = 0
    damaged: frozenset[Damage] = frozenset()

    @classmethod
    def empty(
        cls, units: tuple[UnitMaps, ...], top: int, *, statistics: bool, profiled: Sequence[int] = ()
    ) -> "Progress":
        """Return that of a scan which hasn't begun."""
        return cls(
            {
                unit.unit_address: Tally.empty(unit.num_units, top, statistics=statistics, profiled=profiled)
                for unit in units
            }
        )

    def finish(self, number: int, num_images: int, left: Iterable[str]) -> None:
        """Take note that a batch is done; in layers that are ``left`` it had nothing to show."""
        for address in left:
            self.tallies[address].skip(number)
        self.done |= Ranges(((number, number + 1),))
        self.num_images += num_images

    def merge(self, other: "Progress") -> None:
        """Take into account what was found in other batches."""
        for address, tally in self.tallies.items():
            tally.merge(other.tallies[address])
        self.done |= other.done
        self.num_images += other.num_images
        self.damaged |= other.damaged
