"""Which batch norms of a recorded run can be folded, what becomes of the weights, and why others stay."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from convscope.fold.edits import Edit, carry_out
from convscope.fold.gauge.solve import solve
from convscope.fold.ledger import Verdict
from convscope.fold.norms.units import not_called
from convscope.fold.options import DEFAULT, Options
from convscope.fold.paths.certain import Certain
from convscope.fold.planning import precision
from convscope.fold.planning.changes import Changes
from convscope.fold.planning.reasons import Reasons
from convscope.fold.planning.survey import Norm, Survey
from convscope.fold.recorded.flow import Flow
from convscope.tape import Tape


@dataclass(frozen=True)
class Place:
    """A module call whose output shows whether a fold is right.

    Attributes:
        address: the module call.
        scale, shift: the gauge of its output, float64, of shapes that broadcast to it; NaN where nothing is
            known of it, since nobody reads it.
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
        reason: why it stays, altogether or in part, or what else is to be known.
        magnification: largest |γ| / √(v + ε); None if it isn't known.
        place: where to see that it is right, if it doesn't stay.
        reads: the module call whose operator writes what it normalises; "" if none does.
        remedy: what would make it foldable, if it stays; "" if nothing is known to.
    """

    address: str
    verdict: Verdict
    into: tuple[str, ...] = ()
    reason: str = ""
    magnification: float | None = None
    place: Place | None = None
    remedy: str = ""
    reads: str = ""


@dataclass(frozen=True)
class Plan:
    """Decisions, and the edits that carry them out.

    Attributes:
        decisions: one for each batch norm call in order, then one for each module that didn't run.
        stages: changes of the network, each of what the one before has left.
        gauge_at: the gauge of the output of a module call of the last stage, by its address.
    """

    decisions: tuple[Decision, ...]
    stages: tuple[tuple[Edit, ...], ...]
    gauge_at: Callable[[str], tuple[Tensor, Tensor] | None]

    def carry_out(self, model: nn.Module) -> None:
        """Fold a copy of the network, of any dtype, in place."""
        for stage in self.stages:
            carry_out(model, stage)

    @property
    def changes(self) -> tuple[Decision, ...]:
        """The decisions to fold, altogether or in part."""
        return tuple(decision for decision in self.decisions if decision.verdict != "kept")


def plan(
    tape: Tape,
    model: nn.Module,
    options: Options = DEFAULT,
    without: Mapping[str, str] | None = None,
    certain: Certain | None = None,
) -> Plan:
    """Return a decision for every batch norm of a recording, and what is to be done.

    Args:
        tape: a recording of inference.
        model: the network that was recorded, in the modes that its user gave it.
        options: what the user chose.
        without: batch norms to keep, by address, with the reason.
        certain: what is the same on every path through the network; None if there is one path only.
    """
    kept = dict(without or {})
    while True:
        survey = Survey(Flow(tape, model), options, kept, certain)
        solution = solve(survey.reading.system, survey.links, survey.groups(), partial=options.partial)
        changes = Changes(survey, solution, Reasons(survey, solution))
        objections = {**changes.objections(), **precision.objections(changes)}
        if not objections:
            return Plan(_decisions(changes, certain), (changes.edits(),), changes.gauge_at)
        kept.update(objections)


def _decisions(changes: Changes, certain: Certain | None) -> tuple[Decision, ...]:
    survey = changes.survey
    ran = [(norm.unit.last.index, _decision(changes, index)) for index, norm in enumerate(survey.norms)]
    ran += [
        (each.call.index, Decision(each.address, "kept", reason=each.reason, remedy=each.remedy))
        for each in survey.unfit
    ]
    idle = [(path, _why_idle(path, certain)) for path in not_called(survey.flow)]
    left = [Decision(path, "kept", reason=why, remedy=changes.reasons.remedy(why)) for path, why in idle]
    return (*(decision for _, decision in sorted(ran, key=lambda each: each[0])), *left)


def _why_idle(path: str, certain: Certain | None) -> str:
    elsewhere = certain is not None and certain.why_not(f"{path}#1")
    return elsewhere if elsewhere and "paths" in elsewhere else "wasn't called on these inputs"


def _decision(changes: Changes, index: int) -> Decision:
    norm, solution = changes.survey.norms[index], changes.solution
    failure = solution.failures.get(index)
    why = norm.stays or (changes.reasons.text(norm.unit, norm.link, failure) if failure else "")
    remedy = changes.reasons.remedy(why)
    largest = float(np.abs(norm.unit.scale).max(initial=0.0))
    maker = changes.survey.flow.tape.producer(norm.unit.before)
    reads = "" if maker is None else str(maker.address.module)
    if index not in changes.gone:
        return Decision(norm.unit.address, "kept", (), why, largest, None, remedy, reads)
    verdict: Verdict = "folded" if index in solution.folded else "partial"
    into = changes.into[index]
    remarks = "; ".join(text for text in (why, _parted(changes, into)) if text)
    place = _place(changes, norm)
    return Decision(norm.unit.address, verdict, into, remarks, largest, place, remedy, reads)


def _parted(changes: Changes, into: tuple[str, ...]) -> str:
    """Which tensors were one with others before, and aren't any more."""
    parted = changes.parted
    return "; ".join(text for address in (into if parted else ()) for text in parted.get(address, ()))


def _place(changes: Changes, norm: Norm) -> Place | None:
    address = "" if norm.unit.module is None else str(norm.unit.module.address)
    gauge = changes.gauge_at(address)
    return None if gauge is None else Place(address, *gauge)
