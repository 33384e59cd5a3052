"""Branches of a sum that are modules of their own, and which of them can hold what all of them compute.

The other ones then return a zero without dimensions. It adds to anything, but is no place for an in-place
sum, so which branch holds the convolution matters.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from convscope.fold.merge.linear import Gain
from convscope.fold.merge.places import Places
from convscope.fold.merge.terms import Node
from convscope.fold.recorded.flow import Stays
from convscope.tape import ModuleCall


@dataclass(frozen=True, eq=False)
class Branch:
    """A part of a tree that one module call computes.

    Attributes:
        node: the part.
        call: the module call.
        gains: what the tree multiplies it by, one factor after the other.
    """

    node: Node
    call: ModuleCall
    gains: tuple[Gain, ...]

    def scale(self, channels: int) -> Tensor:
        """Return what the tree multiplies it by per channel, in float64."""
        scale = torch.ones(channels, dtype=torch.float64)
        for gain in self.gains:
            scale = scale * gain.number
            scale = scale if gain.vector is None else scale * gain.vector()
        return scale

    @property
    def sign(self) -> float:
        """±1 if that is what the tree multiplies it by, otherwise 0."""
        product = 1.0
        for gain in self.gains:
            product *= gain.number if gain.vector is None else 0.0
        return product if abs(product) == 1 else 0.0


def branches(places: Places, tree: Node) -> Iterator[Branch]:
    """Yield the largest parts of a tree that are module calls of their own, in the order of the sums."""
    pending: list[tuple[Node, tuple[Gain, ...]]] = [(tree, ())]
    while pending:
        node, gains = pending.pop()
        source = node.leaves[0].source
        call = places.of(node, source) if node.call is not None and (gains or node is not tree) else None
        if call is not None:
            yield Branch(node, call, gains)
            continue
        if node.step is not None:
            below = zip(node.children, node.step.operands, strict=True)
            pending.extend(reversed([(child, _with(gains, gain)) for child, (_, gain) in below]))


def carrier_of(tree: Node, found: Sequence[Branch], host: Node) -> Branch:
    """Return the branch whose module can be the convolution while the others' are zeros.

    Preferred is the one that the host convolution is in, then the first operand.

    Raises:
        Stays: wherever the convolution stands, a zero would meet an operator that needs a tensor of full
            shape, or the tree multiplies the branch by something else than ±1.
    """
    own = [branch for branch in found if any(leaf is host for leaf in branch.node.leaves)]
    for branch in dict.fromkeys((*own, found[0])):
        zeros = {id(other.node) for other in found if other is not branch}
        if branch.sign and _takes_zeros(tree, zeros):
            return branch
    if not any(branch.sign for branch in (*own, found[0])):
        raise Stays("the sum's branches are scaled before they are added, and by other code than theirs")
    raise Stays("the sum is written in place into a branch that would be merged away")


def _takes_zeros(tree: Node, zeros: set[int]) -> bool:
    """Whether a tree computes a value of full shape, and never needs one where there is a zero."""
    full: dict[int, bool] = {}
    for node in reversed(list(tree.walk())):
        if id(node) in zeros:
            full[id(node)] = False
        elif node.step is None:
            full[id(node)] = True
        else:
            given = [full[id(child)] for child in node.children]
            call = node.call
            assert call is not None
            if (call.op.endswith("_") or call.op == "batch_norm") and not given[0]:
                return False
            full[id(node)] = any(given)
    return full[id(tree)]


def _with(gains: tuple[Gain, ...], gain: Gain) -> tuple[Gain, ...]:
    return gains if gain.vector is None and gain.number == 1 else (*gains, gain)
