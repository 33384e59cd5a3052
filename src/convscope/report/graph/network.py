"""The network as a graph: which layer reads what which other layer made, grouped by module.

A layer is a row of the cost table, so every row is exactly one node; above the layers stand the module
calls that they ran in, which a reader opens and closes. Calls that do no work (views, reshapes, detaching)
are no rows: what passes through them goes on as an edge.

Limits: only what the recorded forward pass and loss did is there; a value that goes into and out of Python's
numbers leaves no edge.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from convscope.cost import Cost
from convscope.report.graph.flow import Edge, flow
from convscope.report.graph.tree import Branch, Kind, tree
from convscope.tape import Tape

MOST_AT_START, MOST_AT_ONCE = 60, 150
_FEW = 12


@dataclass(frozen=True)
class Node:
    """A layer, or a group of nodes that can be opened.

    A group's numbers are the sums of its layers'. All are for the whole batch.

    Attributes:
        address: stable, unique name: the row's, the module call's, or of a run the first and the last one's.
        kind: ``"input"`` of the network; ``"layer"``: a row of the cost table; ``"module"``: a module's call;
            ``"list"``: modules that are called one after another from a container which isn't called itself;
            ``"run"``: some of the many children of one module; ``"loss"``.
        name: a short one: ``"bn1"``, ``"layer1.0"``, ``"relu (call 2)"``, ``"add"``.
        parent: position of the node that it is in; -1 for the outermost.
        type_name: the module's class; empty where there is none.
        op: a layer's readable operator name.
        row: position of a layer's row in the cost table; None for others.
        num_layers: rows in it.
        output_shape: of its first output, batch included.
        params, macs, forward_flops, backward_flops, saved_bytes: see :class:`convscope.cost.Row`.
        seconds: forward and backward; None where no times were measured.
    """

    address: str
    kind: Kind
    name: str
    parent: int
    type_name: str
    op: str
    row: int | None
    num_layers: int
    output_shape: tuple[int, ...]
    params: int
    macs: int
    forward_flops: int
    backward_flops: int
    saved_bytes: int
    seconds: float | None


@dataclass(frozen=True)
class NetworkGraph:
    """A network's layers, the modules around them, and what each layer reads.

    Attributes:
        nodes: every group before what is in it, otherwise in order of execution.
        edges: between layers and inputs, by their positions.
        opened: positions of the groups that are open at first: at most 60 nodes are seen then.
        most_at_once: how many nodes a reader ever sees at a time.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    opened: tuple[int, ...]
    most_at_once: int = MOST_AT_ONCE

    def children(self) -> dict[int, list[int]]:
        """Return the positions of the nodes directly in each group; -1 is the whole network."""
        children: dict[int, list[int]] = {-1: []}
        for position, node in enumerate(self.nodes):
            children.setdefault(node.parent, []).append(position)
        return children


Summed = Literal["params", "macs", "forward_flops", "backward_flops", "saved_bytes"]
SUMMED: tuple[Summed, ...] = ("params", "macs", "forward_flops", "backward_flops", "saved_bytes")


def graph_of(tape: Tape, cost: Cost) -> NetworkGraph:
    """Return the graph of a recorded step.

    Args:
        tape: the recording.
        cost: the reading of that recording.

    Example:
        >>> from torch import nn
        >>> from convscope.cost import cost_of
        >>> from convscope.tape import record
        >>> tape = record(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), (2, 3, 8, 8))
        >>> graph = graph_of(tape, cost_of(tape))
        >>> [(node.address, node.kind) for node in graph.nodes]
        [('input', 'input'), ('0#1', 'layer'), ('1#1', 'layer')]
        >>> [(edge.source, edge.target) for edge in graph.edges]
        [(0, 1), (1, 2)]
    """
    seconds = {row.address: row.seconds for row in cost.timings.rows} if cost.timings else None
    nodes = list(_nodes(tree(tape, cost.rows), -1, 0, cost, seconds))
    layers = {node.row: position for position, node in enumerate(nodes) if node.row is not None}
    inputs = [position for position, node in enumerate(nodes) if node.kind == "input"]
    edges = flow(tape, [row.address for row in cost.rows], layers, inputs)
    unopened = NetworkGraph(tuple(nodes), edges, ())
    return NetworkGraph(unopened.nodes, edges, _opened_at_first(unopened))


def _nodes(
    branches: Iterable[Branch], parent: int, position: int, cost: Cost, seconds: dict[str, float] | None
) -> list[Node]:
    """The nodes of some branches, whose first one gets a position."""
    nodes: list[Node] = []
    for branch in branches:
        own = position + len(nodes)
        inside = _nodes(branch.children, own, own + 1, cost, seconds)
        rows = [cost.rows[row] for row in branch.rows()]
        sums = {name: sum(getattr(row, name) for row in rows) for name in SUMMED}
        times = [seconds.get(row.address, 0.0) for row in rows] if seconds is not None else None
        nodes.append(
            Node(
                address=branch.address,
                kind=branch.kind,
                name=branch.name,
                parent=parent,
                type_name=branch.type_name,
                op=cost.rows[branch.row].op if branch.row is not None else "",
                row=branch.row,
                num_layers=len(rows),
                output_shape=branch.output_shape,
                seconds=sum(times) if times is not None else None,
                **sums,
            )
        )
        nodes += inside
    return nodes


def _opened_at_first(graph: NetworkGraph) -> tuple[int, ...]:
    """Open level after level while 60 nodes suffice, and where that leaves few, the costliest groups."""
    children = graph.children()
    opened = {group for group, inside in children.items() if group >= 0 and len(inside) == 1}

    def seen(position: int) -> list[int]:
        if position not in children or (position >= 0 and position not in opened):
            return [position]
        return [each for child in children[position] for each in seen(child)]

    def fits(groups: Iterable[int]) -> bool:
        added = set(groups) - opened
        opened.update(added)
        if len(seen(-1)) <= MOST_AT_START:
            return bool(added)
        opened.difference_update(added)
        return False

    while fits([each for each in seen(-1) if each in children]):
        pass
    if len(seen(-1)) < _FEW:
        closed = [each for each in seen(-1) if each in children]
        for group in sorted(closed, key=lambda each: -graph.nodes[each].macs):
            fits([group])
    return tuple(sorted(opened))
