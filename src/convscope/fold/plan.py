"""Which batch norms of a recorded run can be folded, what becomes of the weights, and why others stay."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from convscope.fold.changes import Changes
from convscope.fold.edits import Edit
from convscope.fold.flow import Flow
from convscope.fold.gauge.solve import solve
from convscope.fold.ledger import Verdict
from convscope.fold.options import DEFAULT, Options
from convscope.fold.reasons import Reasons
from convscope.fold.survey import Norm, Survey
from convscope.fold.units import not_called
from convscope.tape import Tape


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
        reason: why it stays, altogether or in part, or what else is to be known.
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
    tape: Tape, model: nn.Module, options: Options = DEFAULT, without: Mapping[str, str] | None = None
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
        survey = Survey(Flow(tape, model), options, kept)
        solution = solve(survey.reading.system, survey.links, survey.groups())
        changes = Changes(survey, solution, Reasons(survey.reading))
        objections = changes.objections()
        if not objections:
            return Plan(_decisions(changes), changes.edits())
        kept.update(objections)


def _decisions(changes: Changes) -> tuple[Decision, ...]:
    survey = changes.survey
    ran = [(norm.unit.last.index, _decision(changes, index)) for index, norm in enumerate(survey.norms)]
    ran += [(each.call.index, Decision(each.address, "kept", reason=each.reason)) for each in survey.unfit]
    idle = [
        Decision(path, "kept", reason="wasn't called on these inputs") for path in not_called(survey.flow)
    ]
    return (*(decision for _, decision in sorted(ran, key=lambda each: each[0])), *idle)


def _decision(changes: Changes, index: int) -> Decision:
    norm, solution = changes.survey.norms[index], changes.solution
    failure = solution.failures.get(index)
    why = norm.stays or (changes.reasons.text(norm.unit, norm.link, failure) if failure else "")
    if index not in changes.gone:
        return Decision(norm.unit.address, "kept", reason=why)
    verdict: Verdict = "folded" if index in solution.folded else "partial"
    into = changes.into[index]
    largest = float(np.abs(norm.unit.scale).max(initial=0.0))
    remarks = "; ".join(text for text in (why, _parted(changes, into)) if text)
    return Decision(norm.unit.address, verdict, into, remarks, largest, _place(changes, norm))


def _parted(changes: Changes, into: tuple[str, ...]) -> str:
    """Which tensors were one with others before, and aren't any more."""
    parted = [text for address in into if (edit := changes.reweighed.get(address)) for text in edit.parted]
    return "; ".join(parted)


def _place(changes: Changes, norm: Norm) -> Place | None:
    module = norm.unit.module
    if module is None or not module.outputs:
        return None
    labels = changes.survey.reading.of(module.outputs[0])
    return Place(str(module.address), *changes.gauges.of(labels))
