"""A recorded run, read for folding: its batch norms as links between labels, and which of them may fold."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from convscope.fold.gauge import rules
from convscope.fold.gauge.labels import Labels, on_axis
from convscope.fold.gauge.links import Link
from convscope.fold.gauge.reading import Reading
from convscope.fold.gauge.scales import Numbers
from convscope.fold.norms.functional import Skip, lent_biases, place_of
from convscope.fold.norms.kept_norm import KeptNorm, kept_norm_of
from convscope.fold.norms.shell import Shell
from convscope.fold.norms.units import Unfit, Unit, units_of
from convscope.fold.options import Options
from convscope.fold.paths.certain import Certain
from convscope.fold.recorded.flow import Flow, Stays

assert rules.__all__  # importing them fills the table of rules

_CHANNELS = 1


class ShiftStays(str):
    """Why a batch norm's shift is to stay where it is; its scale may go."""


@dataclass(frozen=True)
class Norm:
    """One batch norm of a run.

    Attributes:
        unit: what it computes.
        link: its link between labels.
        takes: how it takes gauges in if it is kept, or None if it can't.
        shell: what is replaced or skipped if it folds, or None if it can't.
        stays: why it can't; "" if it may.
    """

    unit: Unit
    link: Link
    takes: KeptNorm | None
    shell: Shell | Skip | None
    stays: str


class Survey:
    """A recorded run, read to its end.

    Attributes:
        flow: the recording and the network.
        reading: what its operators ask.
        norms: its batch norms, in order; one index for a norm and its link.
        unfit: batch norm calls that aren't y = s · x + t.

    Args:
        flow: the recording and the network.
        options: what the user chose.
        kept: batch norms to keep, by address, and why; their shifts only where this is a :class:`ShiftStays`.
        certain: what is the same on every path through the network; None if there is one path only.
    """

    def __init__(
        self, flow: Flow, options: Options, kept: Mapping[str, str], certain: Certain | None = None
    ) -> None:
        self.flow = flow
        self.reading = Reading(flow, options)
        self.norms: list[Norm] = []
        self.unfit: list[Unfit] = []
        self._kept, self._certain = kept, certain
        self._written: dict[tuple[str, bytes], Labels] = {}
        self._read()
        for value, why in flow.seen():
            self.reading.fix(value, why)
        for value, why in (certain.uncertain if certain is not None else {}).items():
            self.reading.fix(value, why)
        self._require_whole()
        self._hold_shifts()

    @property
    def links(self) -> list[Link]:
        """The batch norms as links between labels."""
        return [norm.link for norm in self.norms]

    def groups(self) -> list[list[int]]:
        """Return the indices of batch norms that may fold, together where they're calls of one module."""
        groups: dict[str, list[int]] = {}
        for index, norm in enumerate(self.norms):
            if norm.shell is not None:
                groups.setdefault(norm.shell.path, []).append(index)
        return list(groups.values())

    def _read(self) -> None:
        found = units_of(self.flow, self.reading.constants)
        last = {each.last.index if isinstance(each, Unit) else each.call.index: each for each in found}
        units = [each for each in found if isinstance(each, Unit)]
        inside = self._inside(units)
        self._places = {unit.last.index: self._place(unit) for unit in units}
        places = [place for place in self._places.values() if not isinstance(place, Stays)]
        self.reading.lent = lent_biases(places)
        for call in self.flow.tape.in_phase("forward"):
            norm = last.get(call.index)
            if isinstance(norm, Unit):
                self.norms.append(self._linked(norm))
            elif isinstance(norm, Unfit):
                self.reading.opaque(call, f"{norm.address} {norm.reason}")
                self.unfit.append(norm)
            elif call.index not in inside:
                self.reading.read(call)

    def _inside(self, units: list[Unit]) -> set[int]:
        """The calls of which batch norms consist, but for their last ones."""
        return {
            call.index
            for unit in units
            if unit.module is not None and unit.first is not unit.last
            for call in self.flow.operators_of(unit.module)
            if unit.first.index <= call.index < unit.last.index
        }

    def _linked(self, unit: Unit) -> Norm:
        """A batch norm between the labels of its input and new ones for its output."""
        before = self.reading.of(unit.before)
        shape = np.broadcast_shapes(before.shape, unit.scale.shape)
        rows: Numbers = np.stack(
            [np.broadcast_to(each, shape).reshape(-1) for each in (before, unit.scale, unit.shift)]
        ).astype(np.float64)
        each_once, inverse = rows, np.arange(rows.shape[1])
        if before.any() and np.unique(rows[0]).size < rows.shape[1]:  # channels of several samples, perhaps
            each_once, inverse = np.unique(rows, axis=1, return_inverse=True)
        fresh = self._fresh(unit, each_once)
        after: Labels = fresh[inverse.reshape(-1)].reshape(shape)
        self.reading.set(unit.after, after)
        size = shape[_CHANNELS] if len(shape) > _CHANNELS else 0
        ends = [on_axis(labels, _CHANNELS, size) if size else None for labels in (before, after)]
        takes = kept_norm_of(self.flow, unit, *ends)
        labels, scale, shift = each_once
        link = Link(labels.astype(np.int64), fresh, scale, shift, takes is not None)
        place = self._places[unit.last.index]
        if isinstance(place, Stays):
            return Norm(unit, link, takes, None, self.reading.text(place))
        return Norm(unit, link, takes, place, "")

    def _fresh(self, unit: Unit, rows: Numbers) -> Labels:
        """New labels for what a batch norm writes; the same ones for all its calls on the same channels."""
        key = ("" if unit.module is None else unit.module.address.path, rows.tobytes())
        if not key[0] or key not in self._written:
            self._written[key] = self.reading.system.fresh((rows.shape[1],))
        return self._written[key]

    def _place(self, unit: Unit) -> Shell | Skip | Stays:
        """What is replaced or skipped if a batch norm folds, or why it can't."""
        try:
            why_kept = self._kept.get(unit.address, ShiftStays())
            if not isinstance(why_kept, ShiftStays):
                raise Stays(why_kept)
            why_not = "" if self._certain is None else self._certain.why_not(unit.address)
            if why_not:
                raise Stays(why_not)
            return place_of(self.flow, self.reading.constants, unit)
        except Stays as reason:
            return reason

    def _hold_shifts(self) -> None:
        """Let no shift come to the batch norms whose own is to stay, nor go from them."""
        for norm in self.norms:
            why = self._kept.get(norm.unit.address)
            if isinstance(why, ShiftStays):
                for labels in (norm.link.before, norm.link.after):
                    self.reading.system.demand("no shift", labels, why)

    def _require_whole(self) -> None:
        """Keep the batch norms of modules of which not all calls may fold, or not alike."""
        for group in self.groups():
            first = self.norms[group[0]]
            assert first.shell is not None
            why = ""
            if isinstance(first.shell, Skip):
                why = self._why_not_all(group, first.shell)
            elif len(calls := self.flow.calls_of_module(first.shell.path)) > len(group):
                known = {str(norm.unit.module.address) for i in group if (norm := self.norms[i]).unit.module}
                kept = next(str(call.address) for call in calls if str(call.address) not in known)
                why = f"its module is also called at {kept}, where it stays"
            elif any(self.norms[index].shell != first.shell for index in group):
                why = "its module's calls run different parts of it"
            for index in group if why else ():
                norm = self.norms[index]
                self.norms[index] = Norm(norm.unit, norm.link, norm.takes, None, why)

    def _why_not_all(self, group: list[int], skip: Skip) -> str:
        """Why a batch norm can't be skipped: not all of its calls may fold; else nothing."""
        others = skip.calls - {self.norms[index].unit.last.index for index in group}
        if not others:
            return ""
        return f"is also called at {self.flow.tape.calls[min(others)].address}, where it stays"
