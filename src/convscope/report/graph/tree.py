"""The rows of the cost table grouped by the module calls in which they ran, no group too large to look at."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Literal

from convscope.core.address import ROOT
from convscope.cost import Row
from convscope.tape import ModuleCall, Tape

Kind = Literal["input", "layer", "module", "list", "run", "loss"]
MOST_CHILDREN = 60


@dataclass
class Branch:
    """A node and what is in it; the other fields are those of :class:`convscope.report.graph.network.Node`.

    Attributes:
        path: of the module whose call it is; empty where it is none.
    """

    address: str
    kind: Kind
    name: str
    path: str = ""
    type_name: str = ""
    output_shape: tuple[int, ...] = ()
    row: int | None = None
    children: list["Branch"] = field(default_factory=list)

    def rows(self) -> Iterator[int]:
        """Yield the positions of the rows in it."""
        if self.row is not None:
            yield self.row
        for child in self.children:
            yield from child.rows()


def tree(tape: Tape, rows: Sequence[Row]) -> list[Branch]:
    """Return the outermost nodes of a network, in order of execution, with all others in them.

    Args:
        tape: the recording.
        rows: of the cost table, not rolled up.
    """
    network = Branch(f"{ROOT}#1", "module", ROOT, ROOT)
    loss = Branch("loss", "loss", "loss")
    grown: dict[int, Branch] = {}

    def grow(module: int | None) -> Branch:
        """The branch of a module call, with the branches around it."""
        call = None if module is None else tape.modules[module]
        if call is None or call.parent is None:
            return network
        if call.index not in grown:
            shape = tape.values[call.outputs[0]].shape if call.outputs else ()
            path, name = call.address.path, _name(call)
            branch = Branch(str(call.address), "module", name, path, call.type_name, shape)
            grown[call.index] = branch
            grow(call.parent).children.append(branch)
        return grown[call.index]

    for position, row in enumerate(rows):
        found = tape.find(row.address)
        assert found is not None, row.address
        if isinstance(found, ModuleCall):
            inside, path, name = found.parent, row.path, _name(found)
        else:
            inside, path, name = found.module, "", row.op
        place = loss if row.phase == "loss" else grow(inside)
        layer = Branch(row.address, "layer", name, path, row.type_name, row.output_shape, position)
        place.children.append(layer)
    _divide(network)
    if loss.children:
        loss.output_shape = loss.children[-1].output_shape
        _divide(loss)
    return [*_inputs(tape), *network.children, *([loss] if loss.children else [])]


def _inputs(tape: Tape) -> list[Branch]:
    names = [f"input {number}" for number in range(1, len(tape.inputs) + 1)]
    if len(names) == 1:
        names = ["input"]
    shapes = [tape.values[value].shape for value in tape.inputs]
    return [
        Branch(name, "input", name, output_shape=shape) for name, shape in zip(names, shapes, strict=True)
    ]


def _name(call: ModuleCall) -> str:
    """A module call's short name: ``bn1``, ``layer1.0``, ``stages.1.0``, ``relu (call 2)``."""
    parts = call.address.path.split(".")
    last_word = max((place for place, part in enumerate(parts) if not part.isdigit()), default=0)
    name = call.type_name if call.address.path == ROOT else ".".join(parts[last_word:])
    return name if call.address.call == 1 else f"{name} (call {call.address.call})"


def _divide(branch: Branch) -> None:
    """Put containers that aren't called, and runs of children where there are too many, in between."""
    for child in branch.children:
        _divide(child)
    if branch.kind == "module":
        branch.children = _listed(branch.children, branch.path)
    branch.children = _in_runs(branch.children)


def _listed(children: list[Branch], path: str) -> list[Branch]:
    """Modules ``blocks.0``, ``blocks.1`` … that ``path`` calls one after another become a list ``blocks``."""
    found: list[Branch] = []
    used: dict[str, int] = {}
    for container, together in groupby(children, lambda child: _container(child, path)):
        members = list(together)
        if not container or len(members) < 2 or len(members) == len(children):
            found += members
            continue
        used[container] = used.get(container, 0) + 1
        number = f" ({used[container]})" if used[container] > 1 else ""
        name = container.rpartition(".")[2] + number
        inside = Branch(container + number, "list", name, output_shape=members[-1].output_shape)
        inside.children = _in_runs(_listed(members, container))
        found.append(inside)
    return found


def _container(child: Branch, path: str) -> str:
    """The path of the container between a module and the module that calls it; empty if there is none."""
    before = "" if path == ROOT else f"{path}."
    between = child.path.removeprefix(before).split(".")[:-1]
    return before + between[0] if between and child.path.startswith(before) else ""


def _in_runs(children: list[Branch]) -> list[Branch]:
    """At most 60 branches: the children, or runs of about as many children as there are runs."""
    count = len(children)
    if count <= MOST_CHILDREN:
        return children
    number = min(MOST_CHILDREN, math.ceil(math.sqrt(count)))
    edges = [count * step // number for step in range(number + 1)]
    runs = []
    for start, end in pairwise(edges):
        members = children[start:end]
        first, last = members[0], members[-1]
        run = Branch(f"{first.address} … {last.address}", "run", f"{first.name} … {last.name}")
        run.output_shape, run.children = last.output_shape, _in_runs(members)
        runs.append(run)
    return runs
