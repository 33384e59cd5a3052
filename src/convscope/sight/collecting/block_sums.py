"""Sums of floating-point numbers that are the same to the last bit, whoever adds up which part.

Rounding depends on the order of adding. So the order is fixed by the batches' numbers alone: node
``(level, index)`` of a binary tree is the sum of the batches from ``index · 2^level`` to
``(index + 1) · 2^level − 1``, and always that of its two halves. Two halves that are both there become one
node, so n batches in a row leave at most 2 · log2(n) nodes.
"""

from dataclasses import dataclass, field
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

Node = tuple[int, int]


@dataclass
class BlockSums:
    """The sums of some batches.

    Attributes:
        nodes: of the largest whole blocks, by (level, index).

    Example:
        >>> early, late = BlockSums(), BlockSums()
        >>> for number in (3, 2):
        ...     late.add(number, torch.tensor([0.1 * number]))
        >>> for number in (0, 1):
        ...     early.add(number, torch.tensor([0.1 * number]))
        >>> late.merge(early)
        >>> list(late.nodes)
        [(2, 0)]
    """

    nodes: dict[Node, Tensor] = field(default_factory=dict)

    def add(self, number: int, values: Float[Tensor, "*s"]) -> None:
        """Take a batch's sums into account; each batch is added once."""
        self._place((0, number), values)

    def merge(self, other: "BlockSums") -> None:
        """Take the batches of another one into account, none of which is in this one."""
        for node, values in sorted(other.nodes.items()):
            self._place(node, values)

    def total(self) -> Float[Tensor, "*s"] | None:
        """Return the sum of all, from the last block to the first, or None of nothing."""
        ordered = sorted(self.nodes, key=lambda node: node[1] << node[0], reverse=True)
        return reduce(torch.add, (self.nodes[node] for node in ordered)) if ordered else None

    def _place(self, node: Node, values: Tensor) -> None:
        level, index = node
        while (other := self.nodes.pop((level, index ^ 1), None)) is not None:
            values = values + other  # in either order: one addition commutes, to the bit
            level, index = level + 1, index // 2
        assert (level, index) not in self.nodes
        self.nodes[level, index] = values
