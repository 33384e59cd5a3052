"""A fold in stages: batch norms folded, parallel branches merged, and what that has made foldable folded.

A batch norm on its own in a branch beside convolutions can only be merged with them, which is easier once the
others are folded; and one behind a sum of branches can only be folded once the sum is one convolution.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

import torch
from torch import nn

from convscope.core.address import ROOT, Address, parse_address
from convscope.core.errors import ConvscopeError
from convscope.fold.edits import Edit, carry_out
from convscope.fold.merge import Merge, Merged, MergedSum, merge_branches
from convscope.fold.norms.renamed import Renamed, renamed
from convscope.fold.options import Options
from convscope.fold.paths.certain import Certain
from convscope.fold.planning.names import Untold, first_names
from convscope.fold.planning.plan import Decision, Place, Plan, plan
from convscope.fold.proof.settle import copied
from convscope.fold.proof.trials import in_dtype
from convscope.tape import Tape, device_of, record


class Stages:
    """The stages of a network's fold, planned anew for every set of batch norms that are to be kept.

    Args:
        model: the network; it stays as it is.
        tape: its recording of inference.
        inputs: as :func:`convscope.fold.proof.trials.described` returns them.
        options: what the user chose.
        certain: what is the same on every path through the network; None if there is one path only.
    """

    def __init__(
        self, model: nn.Module, tape: Tape, inputs: Any, options: Options, certain: Certain | None
    ) -> None:
        self._model, self._tape, self._inputs = model, tape, inputs
        self._options, self._certain = options, certain
        found = merge_branches(model, inputs, tape=tape) if options.merge else Merged()
        self._has_branches = bool(found.merges or found.unmerged)

    def __call__(self, kept: Mapping[str, str]) -> Plan:
        """Return the plan in which some batch norms, by address, are kept for a reason."""
        if not self._has_branches:
            return self._at_once(kept)
        whole = replace(self._options, partial=False)
        first = plan(self._tape, self._model, whole, kept, self._certain)
        network, inputs = copied(self._model).to(torch.float64), in_dtype(self._inputs, torch.float64)
        first.carry_out(network)
        try:
            merges = _merges(first, network, inputs, kept)
            if not merges:
                return self._at_once(kept)
            edits = tuple(edit for merge in merges for edit in merge.edits)
            carry_out(network, edits)
            sums = [merged for merge in merges for merged in merge.sums]
            last = self._last(_left(first, sums), network, inputs, kept)
        except (ConvscopeError, Untold):  # the network doesn't run in float64, for one
            return self._at_once(kept)
        names = {address: merged.into for merged in sums for address in merged.vanished}
        named: tuple[Edit, ...] = (Renamed(names),)
        return Plan(_decisions(first, sums, last), (*first.stages, edits, *last.stages, named), last.gauge_at)

    def _at_once(self, kept: Mapping[str, str]) -> Plan:
        return plan(self._tape, self._model, self._options, kept, self._certain)

    def _last(self, left: Sequence[str], network: nn.Module, inputs: Any, kept: Mapping[str, str]) -> Plan:
        """What becomes of the batch norms that are left, under the names that they had at first."""
        tape = record(network, inputs, device=device_of(network))
        was = first_names(left, tape, network)
        now = {first: name for name, first in was.items()}
        last = plan(tape, network, self._options, {now.get(name, name): why for name, why in kept.items()})
        named = (replace(made, address=was.get(made.address, made.address)) for made in last.decisions)
        return replace(last, decisions=tuple(named))


def _merges(first: Plan, network: nn.Module, inputs: Any, kept: Mapping[str, str]) -> list[Merge]:
    """The merges of a network after its first stage; batch norms under the names that they had before."""
    tape = record(network, inputs, device=device_of(network))
    was = first_names(_left(first, []), tape, network)
    merges = [merge.renamed(was) for merge in merge_branches(network, inputs, tape=tape).merges]
    return [merge for merge in merges if not _touches(merge, kept)]


def _left(first: Plan, sums: Iterable[MergedSum]) -> list[str]:
    """The names of the batch norms that the first stage and merges leave."""
    merged = {address for each in sums for address in each.batch_norms}
    left = (decision.address for decision in first.decisions if decision.verdict != "folded")
    return [address for address in left if address not in merged]


def _touches(merge: Merge, kept: Mapping[str, str]) -> bool:
    """Whether a merge takes batch norms away that are to be kept."""
    gone = (address for merged in merge.sums for address in (*merged.batch_norms, *merged.vanished))
    return any(address in kept for address in gone)


def _decisions(first: Plan, sums: list[MergedSum], last: Plan) -> tuple[Decision, ...]:
    """What became of the batch norms of the network as it was, over all stages."""
    gone = {address: merged for merged in sums for address in (*merged.vanished, *merged.batch_norms)}
    names = {address: merged.into for merged in sums for address in merged.vanished}
    within = {address: merged for merged in sums for address in merged.inside}
    later = {decision.address: decision for decision in last.decisions}
    made = []
    for decision in first.decisions:
        merged = gone.get(decision.address) or gone.get(decision.reads)
        host = within.get(decision.place.address) if decision.place is not None else None
        if merged is not None:
            place, into = _around(merged, first, last), (merged.into,)
            made.append(Decision(decision.address, "merged", into, "", decision.magnification, place))
        elif decision.verdict != "folded":
            made.append(_later(later.get(decision.address, decision), first, last))
        else:
            place = _over(decision.place, last) if host is None else _around(host, first, last)
            place = place or _around(None, first, last)
            made.append(replace(decision, into=renamed(decision.into, names), place=place))
    return tuple(made)


def _around(merged: MergedSum | None, first: Plan, last: Plan) -> Place | None:
    """The innermost module call around a sum that is there before and after; None: the network itself."""
    texts = () if merged is None else (merged.into, *merged.vanished, *merged.batch_norms, *merged.inside)
    names = [parse_address(text) for text in texts]
    levels = zip(*(name.path.split(".")[:-1] for name in names), strict=False)
    common = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels)]
    for length in range(len(common), -1, -1):
        path = ".".join(common[:length])
        around = str(Address(path, names[0].call) if path else Address(ROOT))
        gauge = first.gauge_at(around)
        place = _over(None if gauge is None else Place(around, *gauge), last)
        if place is not None:
            return place
    return None


def _later(decision: Decision, first: Plan, last: Plan) -> Decision:
    """A decision of the last stage, as the network was: the first stage may have changed values."""
    if decision.place is None:
        return decision
    gauge = first.gauge_at(decision.place.address)
    place = None if gauge is None else _over(Place(decision.place.address, *gauge), last)
    return replace(decision, place=place)


def _over(place: Place | None, last: Plan) -> Place | None:
    """A place of the first stage with the gauge that it has after the last; None if it is gone."""
    gauge = last.gauge_at(place.address) if place is not None else None
    if place is None or gauge is None:
        return None
    scale, shift = gauge
    return Place(place.address, scale * place.scale, scale * place.shift + shift)
