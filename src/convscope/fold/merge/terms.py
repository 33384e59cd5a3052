"""Sums in a recorded run, as trees of linear operators down to what they are sums of.

A tree's inner nodes are operator calls that are linear in what they read (:mod:`.linear`); its leaves are
convolutions and what can be written as one (:mod:`.layers`), and values as they are. A call is part of a tree
only if nothing but the next one in it sees its result, so that every call is in one tree at most.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from convscope.fold.merge.constants import Run
from convscope.fold.merge.layers import Layer, layer_of
from convscope.fold.merge.linear import Gain, Step, step_of
from convscope.fold.recorded.flow import has_hooks, path_of
from convscope.tape import OperatorCall, Ref

_BATCH_NORM = "batch_norm"


@dataclass(frozen=True, eq=False)
class Node:
    """A value in a tree, and how it is computed there.

    Attributes:
        value: the value.
        call: what computes it; None for a leaf that is the value as it is.
        layer: the convolution that a leaf is, or None.
        step: what an inner node computes, or None.
        children: the operands of ``step``, in order.
        source: of a leaf: the value that it is a linear function of.
        num_calls: operator calls in the tree below and in itself.
    """

    value: int
    call: OperatorCall | None = None
    layer: Layer | None = None
    step: Step | None = None
    children: tuple["Node", ...] = ()
    source: int | None = None
    num_calls: int = 0

    @cached_property
    def leaves(self) -> "tuple[Node, ...]":
        """The leaves, in the order of the sums' operands."""
        return tuple(node for node in self.walk() if not node.children)

    @cached_property
    def calls(self) -> tuple[OperatorCall, ...]:
        """All operator calls of the tree."""
        return tuple(node.call for node in self.walk() if node.call is not None)

    @property
    def batch_norms(self) -> tuple[OperatorCall, ...]:
        """The batch norms among the calls, in the order of execution."""
        return tuple(sorted((c for c in self.calls if c.op == _BATCH_NORM), key=lambda call: call.index))

    @property
    def is_convolution(self) -> bool:
        """Whether this is a convolution with weights of its own."""
        return self.layer is not None and self.layer.held is not None

    def walk(self) -> "Iterator[Node]":
        """Yield this node and all below it, each before what is below it."""
        pending = [self]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(reversed(node.children))


def trees_of(run: Run) -> list[Node]:
    """Return the trees of a recorded run that are sums of two things or more, in order of execution."""
    seen_elsewhere = _Sight(run)
    nodes: dict[int, Node] = {}
    absorbed: set[int] = set()
    for call in run.tape.in_phase("forward"):
        node = _node(run, call, nodes, absorbed, seen_elsewhere)
        if node is not None:
            nodes[node.value] = node
    roots = (node for value, node in nodes.items() if value not in absorbed)
    return [node for node in roots if len(node.children) > 0 and len(node.leaves) > 1]


def _node(
    run: Run, call: OperatorCall, nodes: dict[int, Node], absorbed: set[int], sight: "_Sight"
) -> Node | None:
    layer = layer_of(run, call)
    if layer is not None:
        return Node(call.output, call, layer, source=layer.source, num_calls=1)
    step = step_of(run, call)
    if step is None:
        return None
    children = []
    for value, _ in step.operands:
        below = nodes.get(value)
        if below is not None and sight.only_by(value, call):
            absorbed.add(value)
            children.append(below)
        else:
            children.append(Node(value, source=value))
    num_calls = 1 + sum(child.num_calls for child in children)
    return Node(call.output, call, None, step, tuple(children), None, num_calls)


class _Sight:
    """Who sees a recorded value."""

    def __init__(self, run: Run) -> None:
        tape = run.tape
        self._run = run
        self._outputs = set(tape.outputs)
        hooked = {path for path, module in run.model.named_modules() if has_hooks(module)}
        self._hooked = {
            value
            for call in tape.modules
            if path_of(call) in hooked
            for value in (*call.inputs, *call.outputs)
        }
        # Read through a view that was made before an in-place operator wrote to its memory.
        self._aliased = {
            (value.producer, value.storage)
            for value in tape.values
            if value.producer is not None and value.index not in tape.calls[value.producer].outputs
        }

    def only_by(self, value: int, call: OperatorCall) -> bool:
        """Whether one call, once, is all that sees a value."""
        held = self._run.tape.values[value]
        if value in self._outputs or value in self._hooked or (held.producer, held.storage) in self._aliased:
            return False
        lives_on = self._run.tape.storages[held.storage].death is None
        # In place, a sum's parts lie in the memory of the sum.
        if lives_on and held.storage != self._run.tape.values[call.output].storage:
            return False
        readers = self._run.tape.consumers(value)
        return len(readers) == 1 and readers[0].index == call.index and call.inputs.count(value) == 1


@dataclass(frozen=True)
class Term:
    """One leaf of a tree, and what the tree multiplies it by.

    Attributes:
        leaf: the leaf.
        scale: per channel, float64.
    """

    leaf: Node
    scale: Tensor


def expanded(tree: Node, channels: int, scale: Tensor | None = None) -> tuple[list[Term], Tensor]:
    """Return a tree's value as a sum of scaled leaves and a shift per channel, in float64.

    Args:
        tree: a tree, or a part of one.
        channels: its number of channels.
        scale: multiplies all of it, or None.
    """
    terms: list[Term] = []
    shift = torch.zeros(channels, dtype=torch.float64)
    pending = [(tree, torch.ones_like(shift) if scale is None else scale)]
    while pending:
        node, scale = pending.pop()
        if node.step is None:
            terms.append(Term(node, scale))
            if node.layer is not None and node.layer.bias is not None:
                shift = shift + scale * node.layer.bias()
            continue
        if node.step.shift is not None:
            shift = shift + scale * node.step.shift()
        gains = (gain for _, gain in node.step.operands)
        pending += [(child, scale * _factor(gain)) for child, gain in zip(node.children, gains, strict=True)]
    return terms, shift


def signature(run: Run, tree: Node) -> tuple[object, ...]:
    """Return what two trees have in common if they compute the same function of their sources."""
    return tuple(_signature(run, node) for node in tree.walk())


def sources(tree: Node) -> Counter[int]:
    """Return how many leaves of a tree are functions of each value."""
    return Counter(leaf.source for leaf in tree.leaves if leaf.source is not None)


def _signature(run: Run, node: Node) -> tuple[object, ...]:
    if node.call is None:
        return ("value",)
    held = tuple(
        run.tape.values[value].storage if run.is_constant(value) else None for value in node.call.inputs
    )
    plain = {name: given for name, given in node.call.arguments.items() if not isinstance(given, Ref)}
    return (node.call.op, held, repr(plain))


def _factor(gain: Gain) -> Tensor | float:
    return gain.number if gain.vector is None else gain.vector() * gain.number
