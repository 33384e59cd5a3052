"""What becomes of a network's modules and weights, once it is known which batch norms fold."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from convscope.fold.edits import Edit, Swap
from convscope.fold.gauge.gauges import Gauges
from convscope.fold.gauge.links import Solution
from convscope.fold.layers.layer import Reweigh
from convscope.fold.norms.functional import Skip
from convscope.fold.norms.identity import Replacement, out_of_place
from convscope.fold.norms.neutral import Neutralise
from convscope.fold.planning.aliasing import overwrites
from convscope.fold.planning.reasons import Reasons
from convscope.fold.planning.survey import Norm, Survey
from convscope.fold.planning.takers import Takers
from convscope.tape import ModuleCall


@dataclass
class Changes:
    """The changes that fold some batch norms.

    Attributes:
        survey: the run.
        solution: which of its batch norms fold, and the gauges for which they do.
        into: for the index of each batch norm that folds, the addresses of the layers that took it in.
        reweighed: layers with new weights, by address.
        out_of_place: paths of modules that mustn't write in place any more.
    """

    survey: Survey
    solution: Solution
    reasons: Reasons
    into: dict[int, tuple[str, ...]] = field(default_factory=dict)
    reweighed: dict[str, Reweigh] = field(default_factory=dict)
    out_of_place: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        takers = self._takers()
        self.into = {index: takers.of(index) for index in sorted(self.gone)}
        for layer in self.survey.reading.layers.values():
            edit = layer.edit(self.gauges)
            if edit is not None:
                self.reweighed[layer.address] = edit

    @property
    def gone(self) -> set[int]:
        """Indices of the batch norms that fold, altogether or in part."""
        return self.solution.folded | self.solution.partial

    @cached_property
    def parted(self) -> dict[str, tuple[str, ...]]:
        """For layers whose tensors were one with others before, what they part from, by address."""
        return {address: edit.parted for address, edit in self.reweighed.items() if edit.parted}

    @cached_property
    def gauges(self) -> Gauges:
        """The gauges of all labels."""
        found = self.solution
        return Gauges(*(torch.from_numpy(each) for each in (found.scales, found.shifts, found.constants)))

    def gauge_at(self, address: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the gauge of what a module call returns, NaN where it has none; None without such a call."""
        call = self.survey.flow.tape.find(address)
        if not isinstance(call, ModuleCall) or not call.outputs:
            return None
        return self.gauges.compact(self.survey.reading.of(call.outputs[0]))

    def objections(self) -> dict[str, str]:
        """Return the addresses of batch norms that must be kept after all, with the reason."""
        norms = self.survey.norms
        found: dict[str, str] = {}
        folded = [norms[index].unit for index in sorted(self.solution.folded)]
        values = self.survey.flow.tape.values
        reached: dict[int, str] = {}
        for overwrite in overwrites(self.survey.flow, folded):
            if overwrite.module is not None:
                self.out_of_place[overwrite.module] = None
                continue
            why = f"{overwrite.writer.address} writes in place to what it would hand on"
            for storage in overwrite.storages:
                reached.setdefault(storage, why)
        for unit in folded:
            for value in (unit.before, unit.after):
                if values[value].storage in reached:
                    found[unit.address] = reached[values[value].storage]
        found.update(self._unlike_rests())
        for index, norm in enumerate(norms):
            if isinstance(norm.shell, Skip) and norm.shell.lent_to and index not in self.solution.folded:
                found[norm.unit.address] = self.reasons.text(
                    norm.unit, norm.link, self.solution.failures[index]
                )
        for address, edit in self.reweighed.items():
            if edit.overflows(self.survey.flow.model):
                why = f"the folded weights of {address} don't fit into their dtype: {self._reach(edit)}"
                found.update((norms[i].unit.address, why) for i, into in self.into.items() if address in into)
        return found

    def edits(self) -> tuple[Edit, ...]:
        """Return the changes as edits of a copy of the network."""
        survey = self.survey
        replaced: dict[str, list[int]] = {}
        kept: list[Edit] = []
        for index, norm in enumerate(survey.norms):
            if index in self.gone and norm.shell is not None:
                replaced.setdefault(norm.shell.path, []).append(index)
            elif norm.takes is not None:
                kept += norm.takes.edits(survey.flow.model, self.gauges)
        norms = [self._replaced(group) for group in replaced.values()]
        return (
            *(edit for edit in norms if isinstance(edit, Neutralise)),  # before layers get lent biases
            *self.reweighed.values(),
            *(edit for pad in survey.reading.pads if (edit := pad.edit(self.gauges))),
            *kept,
            *(edit for edit in norms if isinstance(edit, Swap)),
            *(Swap(path, out_of_place) for path in self.out_of_place),
        )

    def _reach(self, edit: Reweigh) -> str:
        model = self.survey.flow.model
        dtype = edit.dtype(model)
        most = torch.finfo(dtype).max
        end = f"{most:,.0f}" if most < 1e6 else f"{most:.1e}"
        return f"they reach {edit.largest(model):.1e}, {str(dtype).removeprefix('torch.')} ends at {end}"

    def _unlike_rests(self) -> dict[str, str]:
        """The calls of modules of which different terms would stay from one call to the next."""
        found = {}
        for group in self.survey.groups():
            if len(group) > 1 and self.solution.partial.issuperset(group):
                first, *others = (self._rest(self.survey.norms[index]) for index in group)
                if not all(other.shape == first.shape and torch.equal(other, first) for other in others):
                    for index in group:
                        unit = self.survey.norms[index].unit
                        found[unit.address] = "its module is called more than once, and its shift differs"
        return found

    def _replaced(self, group: Sequence[int]) -> Swap | Neutralise:
        """The edit after which a batch norm, all of whose calls fold, doesn't run."""
        into = tuple(dict.fromkeys(address for index in group for address in self.into[index]))
        norm = self.survey.norms[group[0]]
        assert norm.shell is not None
        rest = self._rest(norm) if group[0] in self.solution.partial else None
        if isinstance(norm.shell, Skip):
            return Neutralise(norm.shell, into, rest)
        return Swap(norm.shell.path, Replacement(into, norm.shell.parts, rest))

    def _rest(self, norm: Norm) -> torch.Tensor:
        """What is left to be added: y' − x', of shape (C, 1, …); nothing where y was a constant."""
        reading = self.survey.reading
        written = reading.of(norm.unit.after)
        _, before = self.gauges.of(reading.of(norm.unit.before))
        scale, after = self.gauges.of(written)
        left: torch.Tensor = (scale * torch.from_numpy(norm.unit.shift) + after - before)[0]
        return torch.where(self.gauges.is_constant(written)[0], 0.0, left)

    def _takers(self) -> Takers:
        survey = self.survey
        takers = Takers(self.reasons.component, survey.links, self.solution)
        layers = survey.reading.layers.values()
        kept = [n for i, n in enumerate(survey.norms) if n.takes is not None and i not in self.gone]
        takers.add(
            [
                *((each.address, each.outputs) for each in layers),
                *((n.unit.address, n.link.after) for n in kept),
            ],
            [
                *((each.address, each.inputs) for each in layers),
                *((n.unit.address, n.link.before) for n in kept),
            ],
        )
        return takers
