"""Which branches of a recorded run merge, and into what: candidates, and reasons where there is none.

Best is a module whose whole effect is a sum (``place.whole``): a plain one takes its place. Where the sum is
written out among other things, the modules of the branches are exchanged instead: one for the merged
convolution, the others for a zero, so that the sum in the user's code stays harmless.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from convscope.fold.merge.candidate import Candidate
from convscope.fold.merge.constants import Run
from convscope.fold.merge.host import host_of, merged_weights, why_not_in
from convscope.fold.merge.places import Places
from convscope.fold.merge.spread import Branch, branches, carrier_of
from convscope.fold.merge.terms import Node, sources
from convscope.fold.merge.whole import whole_module
from convscope.fold.recorded.flow import Stays
from convscope.tape import OperatorCall


@dataclass
class Choice:
    """Candidates, and why what could have been merged isn't.

    Attributes:
        candidates: in the order in which they were found.
        refused: the reason for each batch norm operator, by its index on the tape.
    """

    candidates: list[Candidate] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)

    def refuse(self, calls: Iterable[OperatorCall], reason: str) -> None:
        """Note why batch norms stay; the last reason counts."""
        self.refused.update((call.index, reason) for call in calls)


def choose(run: Run, places: Places, trees: list[Node]) -> Choice:
    """Return what can be merged in the trees of a recorded run."""
    choice = Choice()
    for tree in trees:
        parents = {id(child): node for node in tree.walk() for child in node.children}
        for source, count in sources(tree).items():
            if count > 1:
                _Search(run, places, choice, parents, source).merge(tree)
    return choice


@dataclass(frozen=True)
class _Search:
    """The search for candidates among one tree's branches from one source."""

    run: Run
    places: Places
    choice: Choice
    parents: dict[int, Node]
    source: int

    def merge(self, tree: Node) -> None:
        """Find one candidate in a part of the tree, or several further down."""
        above, top = self._around(tree)
        # One after the sum can fold into it once it is a single convolution.
        batch_norms = tuple(self._batch_norms((*above, top)[0]))
        num_convolutions = sum(leaf.is_convolution for leaf in self._own(top))
        if not batch_norms and num_convolutions < 2:
            return
        if len(self._own(top)) == len(top.leaves) and self._whole((*above, top), batch_norms):
            return
        if self._parts(top, batch_norms):
            return
        for below in _below_gains(top):
            if len(self._own(below)) > 1:
                self.merge(below)

    def _whole(self, nodes: Iterable[Node], batch_norms: tuple[OperatorCall, ...]) -> bool:
        """Whether a module whose whole effect is one of some nodes, the best first, is a candidate."""
        for node in nodes:
            try:
                self.choice.candidates.append(whole_module(self.run, self.places, node, self.source))
            except Stays as reason:
                self.choice.refuse(batch_norms, str(reason))
            else:
                return True
        return False

    def _parts(self, top: Node, batch_norms: tuple[OperatorCall, ...]) -> bool:
        """Whether the modules of a sum's branches are a candidate."""
        found = [b for b in branches(self.places, top) if set(sources(b.node)) == {self.source}]
        try:
            candidate = self._exchanged(top, found)
        except Stays as reason:
            self.choice.refuse(batch_norms, str(reason))
            return False
        gone = {call.index for call in candidate.gone}
        inside = {call.index for branch in found for call in branch.node.calls}
        for call in self._batch_norms(top):
            if call.index not in gone:
                unfit = why_not_in(self.run, top.leaves, candidate.host) if call.index in inside else ""
                self.choice.refuse([call], unfit or "runs in code which does more, and would run it again")
        self.choice.candidates.append(candidate)
        return True

    def _exchanged(self, top: Node, found: list[Branch]) -> Candidate:
        run = self.run
        leaves = [leaf for branch in found for leaf in branch.node.leaves]
        if len(leaves) < 2:
            raise Stays("the branches beside it aren't modules of their own that read the same value")
        host = host_of(run, leaves)
        unfit = {id(b): why_not_in(run, b.node.leaves, host) for b in found}
        fitting = [branch for branch in found if not unfit[id(branch)]]
        nodes = [branch.node for branch in fitting]
        num_convolutions = sum(leaf.is_convolution for node in nodes for leaf in node.leaves)
        if sum(len(node.leaves) for node in nodes) < 2 or not (
            num_convolutions > 1 or any(node.batch_norms for node in nodes)
        ):
            raise Stays(next(filter(None, unfit.values()), "no other branch of the sum can take it in"))
        for branch in fitting:
            self.places.require_no_hooks(self.places.module_calls_in(branch.call))
        carrier = carrier_of(top, fitting, host.leaf)
        channels = host.geometry.out_channels
        weights = merged_weights(run, [(b.node, b.scale(channels) * carrier.sign) for b in fitting], host)
        gone = tuple(call for node in nodes for call in node.calls)
        others = tuple(branch.call for branch in fitting if branch is not carrier)
        name = host.name_within(run.module_of(carrier.call))
        return Candidate(top, gone, host, weights, carrier.call, name, None, others)

    def _own(self, tree: Node) -> list[Node]:
        """The leaves of a tree that are functions of the source."""
        return [leaf for leaf in tree.leaves if leaf.source == self.source]

    def _around(self, tree: Node) -> tuple[list[Node], Node]:
        """The lowest node above all leaves of the source; the single-operand ones above it, highest first."""
        own = self._own(tree)
        path, last = self._path(own[0]), {id(node) for node in self._path(own[-1])}
        top = next(node for node in path if id(node) in last)
        above: list[Node] = []
        node = self.parents.get(id(top))
        while node is not None and len(node.children) == 1:
            above.insert(0, node)
            node = self.parents.get(id(node))
        return above, top

    def _path(self, leaf: Node) -> list[Node]:
        path = [leaf]
        while id(path[-1]) in self.parents:
            path.append(self.parents[id(path[-1])])
        return path

    def _batch_norms(self, tree: Node) -> Iterator[OperatorCall]:
        """The batch norms of a tree that nothing but branches from the source run through."""
        pure: dict[int, bool] = {}
        for node in reversed(list(tree.walk())):
            below = (pure[id(child)] for child in node.children)
            pure[id(node)] = all(below) if node.children else node.source == self.source
            if pure[id(node)] and node.call is not None and node.call.op == "batch_norm":
                yield node.call


def _below_gains(tree: Node) -> Iterator[Node]:
    """The nodes of a tree that it multiplies by something else than ±1, the uppermost ones."""
    pending = [tree]
    while pending:
        node = pending.pop()
        gains = [] if node.step is None else [gain for _, gain in node.step.operands]
        for child, gain in zip(node.children, gains, strict=True):
            if gain.vector is None and abs(gain.number) == 1:
                pending.append(child)
            elif child.children:
                yield child
