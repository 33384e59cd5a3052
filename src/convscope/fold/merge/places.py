"""Module calls whose whole effect is part of a tree: where other modules can stand instead.

A module's own code can't be changed, but the module can be exchanged for another one of the same effect.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from convscope.fold.merge.constants import Run
from convscope.fold.merge.terms import Node
from convscope.fold.recorded.flow import Stays, has_hooks, path_of
from convscope.tape import ModuleCall


@dataclass(frozen=True)
class Chain:
    """A module call that runs submodules one after the other, then a tree, then submodules again.

    Attributes:
        call: the module call.
        before, after: the submodules' calls that lead to the tree's source, and on from its value.
    """

    call: ModuleCall
    before: tuple[ModuleCall, ...] = ()
    after: tuple[ModuleCall, ...] = ()


class Places:
    """The module calls of a recorded run, by what runs inside them."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def inside(self, call: ModuleCall) -> range:
        """Return the indices of a module call and of all that it made, directly or not."""
        return range(call.index, self._ends[call.index])

    def module_calls_in(self, call: ModuleCall) -> tuple[ModuleCall, ...]:
        """Return a module call and all that it made, in order."""
        return tuple(self.run.tape.modules[index] for index in self.inside(call))

    def around(self, tree: Node) -> ModuleCall:
        """Return the innermost module call in which a tree is computed.

        Raises:
            Stays: part of it runs outside of any module.
        """
        modules = [call.module for call in tree.calls if call.module is not None]
        if len(modules) < len(tree.calls) or not modules:
            raise Stays("it is computed outside of the network's modules")
        first, last = min(modules), max(modules)
        call = self.run.tape.modules[first]
        while last not in self.inside(call):
            assert call.parent is not None
            call = self.run.tape.modules[call.parent]
        return call

    def of(self, node: Node, source: int | None) -> ModuleCall | None:
        """Return the outermost module call which computes a node from one value and does nothing else."""
        found = None
        for call in self._upwards(node):
            if self.num_operators(call) > node.num_calls or not path_of(call):
                break
            if (call.inputs, call.outputs) == ((source,), (node.value,)) and self._runs_all(node, call):
                found = call
        return found

    def chain(self, tree: Node, source: int) -> Chain:
        """Return the module call whose whole effect is a tree, before and after which submodules run.

        Raises:
            Stays: the innermost module call around the tree does more than that.
        """
        call = self.around(tree)
        name = call.address
        if not path_of(call):
            raise Stays("the sum is written out in the network's own code")
        if len(call.inputs) != 1 or len(call.outputs) != 1:
            raise Stays(f"{name} is given or returns more than one tensor")
        children = iter(self.run.children_of(call))
        before = self._run(children, call.inputs[0], source, f"{name} does more before the sum")
        first_after = next(
            (c for c in self.run.children_of(call) if c.inputs == (tree.value,) and self._is_after(c, tree)),
            None,
        )
        after: tuple[ModuleCall, ...] = ()
        if first_after is not None:
            later = (c for c in self.run.children_of(call) if c.index >= first_after.index)
            after = self._run(
                later, tree.value, call.outputs[0], f"{name} does more after the sum", last=True
            )
        elif call.outputs != (tree.value,):
            raise Stays(f"{name} does more with the sum")
        kept = sum(self.num_operators(child) for child in (*before, *after))
        if self.num_operators(call) != kept + tree.num_calls:
            raise Stays(f"{name} does more than the sum")
        self._require_private(call, before, after, tree)
        return Chain(call, before, after)

    def require_no_hooks(self, calls: Iterable[ModuleCall]) -> None:
        """Check that no hook would see other values, or be gone, if modules were exchanged.

        Raises:
            Stays: there is one.
        """
        for call in calls:
            if path_of(call) in self._hooked:
                raise Stays(f"{call.address} has hooks, which would see other values")

    def returning(self, value: int) -> tuple[ModuleCall, ...]:
        """Return the module calls that returned a value, in order."""
        return tuple(self._returning.get(value, ()))

    def num_operators(self, call: ModuleCall) -> int:
        """Return how many operators run inside a module call."""
        inside = self.inside(call)
        return self._counts[inside.stop] - self._counts[inside.start]

    def _upwards(self, node: Node) -> Iterator[ModuleCall]:
        index = None if node.call is None else node.call.module
        while index is not None:
            call = self.run.tape.modules[index]
            yield call
            index = call.parent

    def _runs_all(self, node: Node, call: ModuleCall) -> bool:
        inside = self.inside(call)
        same = self.num_operators(call) == node.num_calls
        return same and all(made.module in inside for made in node.calls)

    def _is_after(self, call: ModuleCall, tree: Node) -> bool:
        """Whether a module call isn't itself part of the tree, as one is that hands the tree's value on."""
        inside = self.inside(call)
        return not any(made.module in inside for made in tree.calls)

    def _run(
        self, calls: Iterator[ModuleCall], start: int, end: int, otherwise: str, *, last: bool = False
    ) -> tuple[ModuleCall, ...]:
        """The calls that lead from one value to another, each reading what the one before it returned."""
        run, value = [], start
        for call in calls if last or value != end else ():
            if call.inputs != (value,) or len(call.outputs) != 1:
                break
            value = call.outputs[0]
            run.append(call)
            if value == end and not last:
                break
        if value != end:
            raise Stays(otherwise)
        return tuple(run)

    def _require_private(
        self, call: ModuleCall, before: tuple[ModuleCall, ...], after: tuple[ModuleCall, ...], tree: Node
    ) -> None:
        """Check that nothing outside of a module call sees what lies between its submodules."""
        tape, inside = self.run.tape, self.inside(call)
        own = {made.index for made in tree.calls}
        between = [child.outputs[0] for child in before] + [tree.value, *(c.outputs[0] for c in after)]
        memory = tape.values[call.outputs[0]].storage
        for value in between:
            if value == call.outputs[0] or value == call.inputs[0]:
                continue
            readers = tape.consumers(value)
            outside = [
                reader for reader in readers if reader.index not in own and reader.module not in inside
            ]
            storage = tape.values[value].storage
            kept = storage != memory and tape.storages[storage].death is None
            if outside or kept or value in tape.outputs:
                raise Stays(f"what is computed inside {call.address} is seen outside of it")

    @cached_property
    def _returning(self) -> dict[int, list[ModuleCall]]:
        found: dict[int, list[ModuleCall]] = {}
        for call in self.run.tape.modules:
            for value in call.outputs:
                found.setdefault(value, []).append(call)
        return found

    @cached_property
    def _hooked(self) -> set[str]:
        return {path for path, module in self.run.model.named_modules() if has_hooks(module)}

    @cached_property
    def _ends(self) -> list[int]:
        """For each module call, the index after the last one inside it."""
        modules = self.run.tape.modules
        ends = [call.index + 1 for call in modules]
        for call in reversed(modules):
            if call.parent is not None:
                ends[call.parent] = max(ends[call.parent], ends[call.index])
        return ends

    @cached_property
    def _counts(self) -> list[int]:
        """How many operators run in all module calls before each."""
        counts = [0]
        for call in self.run.tape.modules:
            counts.append(counts[-1] + len(self.run.operators_of(call)))
        return counts
