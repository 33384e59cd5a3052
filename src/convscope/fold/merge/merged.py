"""What a merge of parallel branches does and reports."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from convscope.fold.edits import Edit


@dataclass(frozen=True)
class MergedSum:
    """One sum of branches that became one convolution.

    Attributes:
        into: the address of that convolution's module call, in the network after the edits.
        batch_norms: the addresses of the batch norms that disappeared, as the ledger names them.
        vanished: the module calls that disappeared with the branches, the convolutions and the batch norms
            already folded into them among them; without those of the branch that lent its kernel.
        inside: the module calls that returned a part of the sum, and return all of it now, or nothing.
    """

    into: str
    batch_norms: tuple[str, ...]
    vanished: tuple[str, ...]
    inside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Merge:
    """Sums that are merged together or not at all, since they share modules; most often it is one.

    Attributes:
        sums: the sums.
        edits: what is done to a copy of the network.
    """

    sums: tuple[MergedSum, ...]
    edits: tuple[Edit, ...]

    def renamed(self, names: Mapping[str, str]) -> "Merge":
        """Return the same with other names of batch norms."""
        sums = (
            replace(each, batch_norms=tuple(names.get(name, name) for name in each.batch_norms))
            for each in self.sums
        )
        return replace(self, sums=tuple(sums))


@dataclass(frozen=True)
class Unmerged:
    """A batch norm in a branch beside others that stays.

    Attributes:
        address: as the ledger names it.
        reason: why.
    """

    address: str
    reason: str


@dataclass(frozen=True)
class Merged:
    """What can be merged in a network.

    Attributes:
        merges: one for each sum, or for several that share modules; any of them can be left out.
        unmerged: the batch norms that read the same value as other branches and stay, and why.
    """

    merges: tuple[Merge, ...] = ()
    unmerged: tuple[Unmerged, ...] = ()

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits of all merges."""
        return tuple(edit for merge in self.merges for edit in merge.edits)

    @property
    def sums(self) -> tuple[MergedSum, ...]:
        """The sums of all merges."""
        return tuple(merged for merge in self.merges for merged in merge.sums)
