"""Branches that can be merged: what goes, what takes their place, and where."""

from dataclasses import dataclass

from convscope.fold.merge.host import Host, Weights
from convscope.fold.merge.places import Chain
from convscope.fold.merge.terms import Node
from convscope.fold.recorded.flow import path_of
from convscope.tape import ModuleCall, OperatorCall


@dataclass(frozen=True, eq=False)
class Candidate:
    """Branches of one sum, in one call of each module, that can be merged.

    Attributes:
        tree: the sum.
        gone: the operator calls that one convolution takes the place of.
        host: whose kernel it has.
        weights: its numbers.
        place: the module call whose module is exchanged for it.
        name: its path within that module, ``""`` if it takes the module's place itself.
        whole: what else the module call runs, if it is that of the whole sum; None for a branch.
        others: the module calls whose modules are exchanged for zeros.
    """

    tree: Node
    gone: tuple[OperatorCall, ...]
    host: Host
    weights: Weights
    place: ModuleCall
    name: str
    whole: Chain | None = None
    others: tuple[ModuleCall, ...] = ()

    @property
    def exchanged(self) -> tuple[ModuleCall, ...]:
        """All module calls whose modules are exchanged."""
        return (self.place, *self.others)

    @property
    def path(self) -> str:
        """The path of the merged convolution."""
        place = path_of(self.place)
        return f"{place}.{self.name}" if self.name else place

    @property
    def address(self) -> str:
        """The module call of the merged convolution."""
        return f"{self.path}#{self.place.address.call}"
