"""A fold in stages: batch norms folded, parallel branches merged, and what that has made foldable folded.

A batch norm on its own in a branch beside convolutions can only be merged with them, which is easier once the
others are folded; and one behind a sum of branches can only be folded once the sum is one convolution.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.fold.certain import Certain
from convscope.fold.edits import carry_out
from convscope.fold.merge import Merge, MergedSum, merge_branches
from convscope.fold.options import Options
from convscope.fold.plan import Decision, Place, Plan, plan
from convscope.fold.trials import in_dtype
from convscope.tape import Tape, device_of, record


class Stages:
    """The stages of a network's fold, planned anew for every set of batch norms that are to be kept.

    Args:
        model: the network; it stays as it is.
        tape: its recording of inference.
        inputs: as :func:`convscope.fold.trials.described` returns them.
        options: what the user chose.
        certain: what is the same on every path through the network; None if there is one path only.
    """

    def __init__(
        self, model: nn.Module, tape: Tape, inputs: Any, options: Options, certain: Certain | None
    ) -> None:
        self._model, self._tape, self._inputs = model, tape, inputs
        self._options, self._certain = options, certain
        self._merges = options.merge and bool(merge_branches(model, inputs, tape=tape).merges)

    def __call__(self, kept: Mapping[str, str]) -> Plan:
        """Return the plan in which some batch norms, by address, are kept for a reason."""
        if not self._merges:
            return plan(self._tape, self._model, self._options, kept, self._certain)
        whole = replace(self._options, partial=False)
        first = plan(self._tape, self._model, whole, kept, self._certain)
        try:
            network, inputs = self._copy(first)
            merges = [merge for merge in merge_branches(network, inputs).merges if not _touches(merge, kept)]
            edits = tuple(edit for merge in merges for edit in merge.edits)
            carry_out(network, edits)
            last = plan(record(network, inputs, device=device_of(network)), network, self._options, kept)
        except ConvscopeError:  # the network doesn't run in float64
            return plan(self._tape, self._model, self._options, kept, self._certain)
        sums = [merged for merge in merges for merged in merge.sums]
        return Plan(_decisions(first, sums, last), (*first.stages, edits, *last.stages), last.gauge_at)

    def _copy(self, first: Plan) -> tuple[nn.Module, Any]:
        network = copy.deepcopy(self._model).to(torch.float64)
        first.carry_out(network)
        return network, in_dtype(self._inputs, torch.float64)


def _touches(merge: Merge, kept: Mapping[str, str]) -> bool:
    """Whether a merge takes batch norms away that are to be kept."""
    gone = (address for merged in merge.sums for address in (*merged.batch_norms, *merged.vanished))
    return any(address in kept for address in gone)


def _decisions(first: Plan, sums: list[MergedSum], last: Plan) -> tuple[Decision, ...]:
    """What became of the batch norms of the network as it was, over all stages."""
    into = {address: merged.into for merged in sums for address in (*merged.vanished, *merged.batch_norms)}
    later = {decision.address: decision for decision in last.decisions}
    return tuple(_decision(decision, into, later, last) for decision in first.decisions)


def _decision(
    decision: Decision, into: Mapping[str, str], later: Mapping[str, Decision], last: Plan
) -> Decision:
    if decision.address in into:
        size = decision.magnification
        return Decision(decision.address, "merged", (into[decision.address],), "", size)
    if decision.verdict != "folded":
        return later.get(decision.address, decision)
    place = decision.place
    gauge = last.gauge_at(place.address) if place is not None else None
    if place is None or gauge is None:
        return replace(decision, place=None)
    scale, shift = gauge
    return replace(decision, place=Place(place.address, scale * place.scale, scale * place.shift + shift))
