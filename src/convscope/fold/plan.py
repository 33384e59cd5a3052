"""Which batch norms of a recorded run can be folded, what becomes of the network's weights, and why others stay."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from convscope.fold import identity
from convscope.fold.aliasing import overwrites
from convscope.fold.edits import Edit, Swap
from convscope.fold.flow import Flow, Stays
from convscope.fold.gauge import rules
from convscope.fold.gauge.gauges import Gauges
from convscope.fold.gauge.labels import Labels, on_axis
from convscope.fold.gauge.reading import Reading
from convscope.fold.gauge.solve import Link, Solution, solve
from convscope.fold.kept_norm import KeptNorm, kept_norm_of
from convscope.fold.layer import Reweigh
from convscope.fold.ledger import Verdict
from convscope.fold.options import Options
from convscope.fold.reasons import Reasons
from convscope.fold.shell import Shell, shell_of
from convscope.fold.takers import Takers
from convscope.fold.units import Unfit, Unit, not_called, units_of
from convscope.tape import Tape

assert rules.__all__  # importing them fills the table


@dataclass(frozen=True)
class Place:
    """A module call whose output shows whether a fold is right.

    Attributes:
        address: the module call.
        scale, shift: the gauge of its output, float64, of shapes that broadcast to it.
    """

    address: str
    scale: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Decision:
    """What becomes of one batch norm.

    Attributes:
        address: its name in the ledger.
        verdict: see :data:`convscope.fold.ledger.Verdict`.
        into: addresses of what takes it in.
        reason: why it stays, altogether or in part.
        magnification: largest |γ| / √(v + ε), if it doesn't stay.
        place: where to see that it is right, if it doesn't stay.
    """

    address: str
    verdict: Verdict
    into: tuple[str, ...] = ()
    reason: str = ""
    magnification: float | None = None
    place: Place | None = None


@dataclass(frozen=True)
class Plan:
    """Decisions, and the edits that carry them out.

    Attributes:
        decisions: one for each batch norm call in order, then one for each module that didn't run.
        edits: changes of the network.
    """

    decisions: tuple[Decision, ...]
    edits: tuple[Edit, ...]

    @property
    def changes(self) -> tuple[Decision, ...]:
        """The decisions to fold, altogether or in part."""
        return tuple(decision for decision in self.decisions if decision.verdict != "kept")


def plan(
    tape: Tape, model: nn.Module, options: Options = Options(), without: Mapping[str, str] | None = None
) -> Plan:
    """Return a decision for every batch norm of a recording, and what is to be done.

    Args:
        tape: a recording of inference.
        model: the network that was recorded, in the modes that its user gave it.
        options: what the user chose.
        without: batch norms to keep, by address, with the reason.
    """
    kept = dict(without or {})
    while True:
        planner = _Planner(Flow(tape, model), options, kept)
        more = planner.objections()
        if not more:
            return planner.plan()
        kept.update(more)


@dataclass
class _Candidate:
    """A batch norm that may fold."""

    unit: Unit
    shell: Shell
    link: int


@dataclass
class _Planner:
    """One attempt at a plan, in which some batch norms are kept."""

    flow: Flow
    options: Options
    kept: dict[str, str]
    links: list[Link] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    absorbing: list[KeptNorm | None] = field(default_factory=list)
    candidates: list[_Candidate] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    inplace: dict[str, None] = field(default_factory=dict)
    reweighed: dict[str, Reweigh] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reading = Reading(self.flow, self.options)
        self.found = units_of(self.flow, self.reading.constants)
        self._read()
        self._see()
        groups: dict[str, list[_Candidate]] = {}
        for candidate in self.candidates:
            groups.setdefault(candidate.shell.path, []).append(candidate)
        whole = [group for group in groups.values() if self._is_whole(group)]
        indices = [[candidate.link for candidate in group] for group in whole]
        self.solution: Solution = solve(self.reading.system, self.links, indices)
        self.texts = Reasons(self.reading)
        self._takers = Takers(self.texts.component, self.links, self.solution)
        layers = self.reading.layers.values()
        gone = self.solution.folded | self.solution.partial
        norms = [(u.address, i) for i, u in enumerate(self.units) if i not in gone and self.absorbing[i] is not None]
        self._takers.add(
            [*((x.address, x.outputs) for x in layers), *((a, self.links[i].after) for a, i in norms)],
            [*((x.address, x.inputs) for x in layers), *((a, self.links[i].before) for a, i in norms)],
        )
        self.gauges = Gauges(torch.from_numpy(self.solution.scales), torch.from_numpy(self.solution.shifts))

    def objections(self) -> dict[str, str]:
        """Return the batch norms that must be kept after all, with the reason."""
        changed = [c.unit for c in self.candidates if c.link in self.solution.folded]
        found = {}
        for conflict in overwrites(self.flow, changed):
            if conflict.module is not None:
                self.inplace[conflict.module] = None
                continue
            for unit in changed:
                storages = {self.flow.tape.values[value].storage for value in (unit.before, unit.after)}
                if storages & set(conflict.storages):
                    why = f"{conflict.writer.address} writes in place to what it would hand on"
                    found[unit.address] = why
        self.edits = self._edits()
        for address, edit in self.reweighed.items():
            if edit.overflows(self.flow.model):
                why = f"the folded weights of {address} don't fit into their dtype"
                found.update({c.unit.address: why for c in self.candidates if address in self._into(c)})
        return found

    def plan(self) -> Plan:
        """Return the decisions and edits."""
        decisions = [self._decision(found, self.texts) for found in self.found]
        idle = [
            Decision(path, "kept", reason="wasn't called on these inputs") for path in not_called(self.flow)
        ]
        return Plan((*decisions, *idle), self.edits)

    def _read(self) -> None:
        skipped: set[int] = set()
        units = {found.last.index if isinstance(found, Unit) else found.call.index: found for found in self.found}
        for found in self.found:
            if isinstance(found, Unit):
                skipped.update(
                    call.index
                    for call in self.flow.operators_of(found.module or self.flow.tape.modules[0])
                    if found.first.index <= call.index < found.last.index
                )
        for call in self.flow.tape.in_phase("forward"):
            at = units.get(call.index)
            if isinstance(at, Unit):
                self._link(at)
            elif isinstance(at, Unfit):
                self.reading.opaque(call, f"{at.address} {at.reason}")
                self.reasons[at.address] = at.reason
            elif call.index not in skipped:
                self.reading.read(call)

    def _link(self, unit: Unit) -> None:
        before = self.reading.of(unit.before)
        shape = np.broadcast_shapes(before.shape, unit.scale.shape)
        rows = [np.broadcast_to(array, shape).reshape(-1) for array in (before, unit.scale, unit.shift)]
        labels, scale, shift = rows
        if before.any() and np.unique(labels).size < labels.size:
            _, first, inverse = np.unique(np.stack(rows), axis=1, return_index=True, return_inverse=True)
            labels, scale, shift = (row[first] for row in rows)
            inverse = inverse.reshape(-1)
        else:
            inverse = np.arange(labels.size)
        fresh = self.reading.system.fresh((labels.size,))
        after: Labels = fresh[inverse].reshape(shape)
        self.reading.set(unit.after, after)
        size = shape[1] if len(shape) > 1 else 0
        norm = kept_norm_of(self.flow, unit, on_axis(before, 1, size), on_axis(after, 1, size)) if size else None
        index = len(self.links)
        self.links.append(Link(labels, fresh, scale, shift, norm is not None))
        self.units.append(unit)
        self.absorbing.append(norm)
        try:
            if unit.address in self.kept:
                raise Stays(self.kept[unit.address])
            shell = shell_of(self.flow, self.reading.constants, unit)
        except Stays as reason:
            self.reasons[unit.address] = str(reason)
        else:
            self.candidates.append(_Candidate(unit, shell, index))

    def _see(self) -> None:
        """Fix the values that others than operators see."""
        for value, why in self.flow.seen():
            self.reading.fix(value, why)

    def _is_whole(self, group: list[_Candidate]) -> bool:
        """Whether all calls of a module are among the candidates, and alike."""
        path, first = group[0].shell.path, group[0]
        calls = self.flow.calls_of_module(path)
        if len(calls) > len(group):
            known = {str(c.unit.module.address) for c in group if c.unit.module}
            kept = next(str(call.address) for call in calls if str(call.address) not in known)
            why = f"its module is also called at {kept}, where it stays"
        elif any(candidate.shell != first.shell for candidate in group):
            why = "its module's calls run different parts of it"
        else:
            return True
        self.reasons.update({candidate.unit.address: why for candidate in group})
        return False

    def _edits(self) -> tuple[Edit, ...]:
        made: list[Edit] = []
        self.reweighed = {}
        for layer in self.reading.layers.values():
            edit = layer.edit(self.gauges)
            if edit is not None:
                made.append(edit)
                self.reweighed[layer.address] = edit
        gone = self.solution.folded | self.solution.partial
        for index, norm in enumerate(self.absorbing):
            if norm is not None and index not in gone:
                made += norm.edits(self.flow.model, self.gauges)
        swapped: dict[str, list[_Candidate]] = {}
        for candidate in self.candidates:
            if candidate.link in gone:
                swapped.setdefault(candidate.shell.path, []).append(candidate)
        for path, group in swapped.items():
            made.append(Swap(path, self._replacement(group)))
        made += [Swap(path, identity.out_of_place) for path in self.inplace]
        return tuple(made)

    def _replacement(self, group: list[_Candidate]) -> identity.Replacement:
        into = tuple(dict.fromkeys(address for c in group for address in self._into(c)))
        first = group[0]
        rest = None
        if first.link in self.solution.partial:
            _, before = self.gauges.of(self.reading.of(first.unit.before))
            scale, after = self.gauges.of(self.reading.of(first.unit.after))
            rest = (scale * torch.from_numpy(first.unit.shift) + after - before)[0]
        return identity.Replacement(into, first.shell.parts, rest)

    def _decision(self, found: Unit | Unfit, texts: Reasons) -> Decision:
        candidate = next((c for c in self.candidates if c.unit is found), None)
        if candidate is None or isinstance(found, Unfit):
            return Decision(found.address, "kept", reason=self.reasons[found.address])
        index = candidate.link
        failure = self.solution.failures.get(index)
        why = self.reasons.get(found.address, "") if failure is None else texts.text(found, self.links[index], failure)
        if index not in self.solution.folded | self.solution.partial:
            return Decision(found.address, "kept", reason=why)
        verdict: Verdict = "folded" if index in self.solution.folded else "partial"
        size = float(np.abs(found.scale).max(initial=0.0))
        return Decision(found.address, verdict, self._into(candidate), why, size, self._place(found))

    def _place(self, unit: Unit) -> Place | None:
        if unit.module is None or not unit.module.outputs:
            return None
        return Place(str(unit.module.address), *self.gauges.of(self.reading.of(unit.module.outputs[0])))

    def _into(self, candidate: _Candidate) -> tuple[str, ...]:
        """The layers that took a batch norm in."""
        return self._takers.of(candidate.link)

