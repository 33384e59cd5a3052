"""Which axes each member of the normalisation family averages over, as data.

A batch of maps has axes ``N`` (samples), ``C`` (channels) and ``S`` (space: length, or height and width).
Group normalisation sees ``C`` split into ``G`` groups of ``c`` channels, so the finest description is
``N G c S``, and a member of the family is nothing but the set of axes that share one mean and one variance:

=========  ==============  ==========================================
member     averaged axes   one mean and variance for
=========  ==============  ==========================================
batch      N, S            every channel
layer      G, c, S         every sample
instance   S               every channel of every sample
group      c, S            every group of channels of every sample
=========  ==============  ==========================================

``N`` can be split likewise, in ``P`` parts of ``n`` samples. Ghost batch norm averages over n and S: one mean
and one variance for every channel of every part (:data:`GHOST`). Batch renorm averages over N and S as batch
does, and so does synchronised batch norm, whose N are the samples of all processes.

Layers turn these sets of axes into dimensions to reduce over; pictures of the family can be drawn from them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import overload

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Member:
    """One member of the family: its name and the axes that its statistics are averaged over.

    Attributes:
        kind: ``"batch"``, ``"layer"``, ``"instance"``, ``"group"`` or ``"ghost"``.
        averaged: the averaged axes among ``N`` (samples), or ``P`` (parts of the batch) and ``n`` (samples of
            a part), ``G`` (groups), ``c`` (channels of a group) and ``S`` (space).
    """

    kind: str
    averaged: frozenset[str]

    def averages(self, axis: str) -> bool:
        """Whether statistics are shared along an axis; ``C`` is ``G`` and ``c``, ``N`` is ``P`` and ``n``."""
        if axis == "C":
            return {"G", "c"} <= self.averaged
        if axis == "N":
            return "N" in self.averaged or {"P", "n"} <= self.averaged
        return axis in self.averaged or (axis in ("P", "n") and "N" in self.averaged)

    def dims(self, legend: str) -> tuple[int, ...]:
        """Return the dimensions to reduce over, for a tensor whose axes a legend spells out.

        Args:
            legend: one letter a dimension, such as ``"NCSS"``, ``"NGcSS"`` or ``"PnCSS"``.

        Example:
            >>> MEMBERS["batch"].dims("NCSS"), MEMBERS["group"].dims("NGcSS")
            ((0, 2, 3), (2, 3, 4))
        """
        return tuple(dim for dim, axis in enumerate(legend) if self.averages(axis))


MEMBERS: Mapping[str, Member] = MappingProxyType(
    {
        kind: Member(kind, frozenset(axes))
        for kind, axes in {"batch": "NS", "layer": "GcS", "instance": "S", "group": "cS"}.items()
    }
)
"""The family, by name."""

GHOST = Member("ghost", frozenset("nS"))
"""Batch norm of every part of a batch by itself: ghost batch norm."""


def legend(rank: int, grouped: bool = False, parted: bool = False) -> str:
    """Return the legend of a batch of maps: samples, channels, then space.

    Args:
        rank: the number of dimensions of the batch, at least 2.
        grouped: whether the channels have been split in two dimensions, groups and channels of a group.
        parted: whether the samples have been split in two dimensions, parts and samples of a part.

    Example:
        >>> legend(4), legend(4, grouped=True), legend(4, parted=True), legend(2)
        ('NCSS', 'NGcSS', 'PnCSS', 'NC')
        >>> GHOST.dims(legend(4, parted=True)), MEMBERS["batch"].dims(legend(4, parted=True))
        ((1, 3, 4), (0, 1, 3, 4))
    """
    return ("Pn" if parted else "N") + ("Gc" if grouped else "C") + "S" * (rank - 2)


@overload
def along(parameter: Float[Tensor, " c"], legend: str) -> Float[Tensor, "..."]: ...
@overload
def along(parameter: None, legend: str) -> None: ...
def along(parameter: Float[Tensor, " c"] | None, legend: str) -> Float[Tensor, "..."] | None:
    """Return a per-channel vector, shaped to broadcast along the axis ``C`` of a legend; None stays None.

    Example:
        >>> import torch
        >>> along(torch.ones(3), "NCSS").shape
        torch.Size([1, 3, 1, 1])
    """
    if parameter is None:
        return None
    return parameter.view([-1 if axis == "C" else 1 for axis in legend])
