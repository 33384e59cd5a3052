"""Whose fold it is when the proof fails: the fewest batch norms that may explain what was seen.

A wrong fold makes all values behind it wrong, so that what counts is which values are wrong although those
before them are right. At such a place it is the place's own batch norm; if that has been held already, those
whose values it is made of, for what they hand on is taken up behind them. Where a value differs by a constant
for each channel, only a shift is at fault, and scales may go.
"""

from collections.abc import Collection, Iterable
from functools import cached_property
from typing import Any

from torch import nn

from convscope.core.address import ROOT
from convscope.core.errors import ConvscopeError
from convscope.fold.planning.plan import Decision, Plan
from convscope.fold.planning.survey import ShiftStays
from convscope.fold.proof.comparison import Comparison, Wrong
from convscope.fold.proof.proof import THRESHOLDS
from convscope.fold.proof.upstream import Upstream
from convscope.tape import Tape, device_of, record

_WHERE = {"other size": ", for inputs of another size", "other number": ", for another number of inputs"}


class Blame:
    """What is taken back, from one attempt to the next.

    Args:
        model: the network.
        inputs: as :func:`convscope.fold.proof.trials.described` returns them.

    Attributes:
        held: the batch norms that are to be kept, by address, and why; in part where it is a
            :class:`ShiftStays`.
    """

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        self._model, self._inputs = model, inputs
        self.held: dict[str, str] = {}
        self._held_places: set[str] = set()
        self._failed: set[tuple[type[nn.Module] | None, bool]] = set()

    def hold(self, plan: Plan, comparison: Comparison, wrong: Wrong, *, spare: bool) -> None:
        """Hold what explains a failure; everything, if nothing that isn't held yet does.

        Args:
            plan: what failed.
            comparison: how it failed.
            wrong: what is wrong where all before it is right, as far as that is known.
            spare: whether there may be another failure, so that scales may be tried on their own.
        """
        held = dict(self.held)
        if comparison.failure:
            self.hold_whole(self._raising(plan, comparison), comparison)
        elif comparison.writes:
            upstream = Upstream(self._tape, _places(plan))
            first = [place for place in _places(plan) if not upstream.of(place)]
            self.hold_whole(_at(plan, first), comparison)
        else:
            self._hold_wrong(plan, comparison, wrong, spare)
        if self.held == held:
            self.hold_whole(plan.changes, comparison)

    def hold_whole(self, decisions: Iterable[Decision], comparison: Comparison) -> None:
        """Hold batch norms altogether."""
        for decision in decisions:
            self.held[decision.address] = f"taken back: {_with_it(decision, comparison)}"
            self._held_places |= set() if decision.place is None else {decision.place.address}

    def firsts(self, plan: Plan, wrong: Wrong) -> Wrong:
        """Return what is wrong but for what may be so because of what is wrong before it."""
        firsts = Upstream(self._tape, _places(plan)).firsts(wrong.places)
        return Wrong(firsts, wrong.shifted & firsts, outputs=False)

    def _hold_wrong(self, plan: Plan, comparison: Comparison, wrong: Wrong, spare: bool) -> None:
        upstream = Upstream(self._tape, _places(plan) | self._held_places)
        ends = upstream.of_outputs() if wrong.outputs else frozenset()
        found = [(each, True) for each in self._handing(plan, upstream, ends)]
        for address in wrong.places:
            found += [
                (each, address in wrong.shifted) for each in self._suspects(plan, upstream, address, spare)
            ]
        beyond_shift = {each.address for each, only_shift in found if not only_shift}
        held = frozenset(self.held)
        for each, _ in found:
            if spare and each.verdict == "folded" and each.address not in beyond_shift | held:
                self.held[each.address] = ShiftStays(_with_it(each, comparison))
            else:
                self.hold_whole([each], comparison)

    def _suspects(self, plan: Plan, upstream: Upstream, address: str, spare: bool) -> list[Decision]:
        """Whose fold a wrong value may be, if all before it is right."""
        before, own = upstream.of(address), _at(plan, [address])
        handing = self._handing(plan, upstream, before)
        if before & self._held_places:
            return handing or own
        if spare and not any(each.address in self.held for each in own):
            return own
        is_again = any(each.address in self.held for each in handing)
        return handing if handing and spare and not is_again else [*own, *handing]

    def _handing(self, plan: Plan, upstream: Upstream, places: Collection[str]) -> list[Decision]:
        """Batch norms at places whose gauges go on, or any there; instead of those held, what is before."""
        in_vain = self._held_places.intersection(places)
        found = _at(plan, {each for place in in_vain for each in upstream.of(place)} or places)
        return [each for each in found if _goes_on(each)] or found

    def _raising(self, plan: Plan, comparison: Comparison) -> list[Decision]:
        """Whose fold a module's code may not bear: the last one before it fails, in all modules of its class.

        If it fails again, all that are inside these modules.
        """
        taken = [each for each in plan.changes if comparison.failed_in in each.into]
        where = _prefix(comparison.failed_in)
        if any(_prefix(each.address) == where for each in plan.changes):
            where = where[:-1].rpartition(".")[0] + "." if "." in where[:-1] else ""  # who calls it so
        modules = {f"{path}." if path else "": type(each) for path, each in self._model.named_modules()}
        kind = modules.get(where)
        alike = [each for each, other in modules.items() if other is kind]
        reached = [each for each in _at(plan, comparison.reached) if _prefix(each.address).startswith(where)]
        is_again = (kind, bool(taken)) in self._failed
        self._failed.add((kind, bool(taken)))
        if taken and not is_again:
            return taken
        if reached and not is_again:
            ends = {each + _prefix(reached[-1].address).removeprefix(where) for each in alike or [where]}
            return [each for each in plan.changes if _prefix(each.address) in ends]
        return [each for each in plan.changes if _prefix(each.address).startswith(tuple(alike))]

    @cached_property
    def _tape(self) -> Tape | None:
        """The network as it was."""
        try:
            return record(self._model, self._inputs, device=device_of(self._model))
        except ConvscopeError:
            return None


def _places(plan: Plan) -> set[str]:
    return {each.place.address for each in plan.changes if each.place is not None}


def _at(plan: Plan, places: Iterable[str]) -> list[Decision]:
    """The batch norms that are seen at places, in the order of these."""
    seen: dict[str, list[Decision]] = {}
    for each in plan.changes:
        if each.place is not None:
            seen.setdefault(each.place.address, []).append(each)
    return [each for place in places for each in seen.get(place, [])]


def _goes_on(decision: Decision) -> bool:
    """Whether what reads a batch norm's value gets another one."""
    place = decision.place
    return place is None or bool((place.scale != 1).any() or (place.shift != 0).any())


def _prefix(address: str) -> str:
    """The beginning of all names inside the module of an address."""
    path = address.partition("#")[0]
    return "" if path == ROOT else f"{path}."


def _with_it(decision: Decision, comparison: Comparison) -> str:
    if comparison.failure:
        where = f" in {comparison.failed_in}" if comparison.failed_in else ""
        return f"with it the network fails{where} ({comparison.failure})"
    if comparison.writes:
        return "with it the network writes to its inputs"
    own = 0.0 if decision.place is None else comparison.at.get(decision.place.address, 0.0)
    worst = max((comparison.max_error, *comparison.at.values()))
    error = own if own > min(THRESHOLDS.values()) else worst
    where = _WHERE.get(comparison.failed_on, "")
    if error == float("inf"):
        return f"with it a value has another shape, isn't finite, or isn't computed{where}"
    return f"with it values differ by {error:.1e} of their size{where}"
